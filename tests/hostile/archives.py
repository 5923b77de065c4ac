"""Hostile archives, built byte by byte: unusual cases that tar, its dialects and the compressors allow."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
UNSAFE, DAMAGED, CUT, UNKNOWN = "unsafe_archive", "damaged_archive", "truncated_archive", "not_an_archive"
TAKEN = ""


@dataclass(frozen=True)
class Archive:
    """An archive: its builder, and the allowed error codes. TAKEN means that it may be unpacked, but only inside."""

    make: Callable[[], bytes]
    codes: frozenset[str]


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """Return GNU's base-256 encoding, for numbers that octal digits cannot express, including negative ones."""
    return (number % (1 << (8 * width - 1)) | (0x80 if number >= 0 else 0xFF) << (8 * (width - 1))).to_bytes(
        width, "big"
    )


def header(
    name: bytes, kind: bytes = b"0", *, size: int | bytes = 0, link: bytes = b"", mode: int = 0o644,
    prefix: bytes = b"", magic: bytes = b"ustar\x0000", mtime: bytes = octal(0, 12), uid: bytes = octal(0, 8),
    checksum: bytes | None = None, device: bytes = octal(8, 8),
) -> bytes:  # fmt: skip
    """Return one header of 512 bytes; its checksum is right unless one is given."""
    size_field = octal(size, 12) if isinstance(size, int) else size
    before = name.ljust(100, b"\0")[:100] + octal(mode, 8) + uid + octal(0, 8) + size_field + mtime
    after = kind + link.ljust(100, b"\0")[:100] + magic + bytes(64) + device + octal(0, 8)
    after += prefix.ljust(155, b"\0")[:155] + bytes(12)
    right = b"%06o\0 " % (sum(before) + sum(after) + 8 * 32)
    return before + (right if checksum is None else checksum) + after


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"x", **fields: object) -> bytes:
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def records(*pairs: tuple[bytes, bytes]) -> bytes:
    """PAX records, each with its own length in front."""
    found = b""
    for key, value in pairs:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length += 1
        found += b"%d" % length + body
    return found


def pax(*pairs: tuple[bytes, bytes], kind: bytes = b"x", raw: bytes | None = None) -> bytes:
    data = records(*pairs) if raw is None else raw
    return header(b"PaxHeader", kind, size=len(data)) + padded(data)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


GOOD = file(b"PG_VERSION", b"17\n") + file(b"global/pg_control", b"\x00\x01" * 4096)


def after_good(*parts: bytes) -> Callable[[], bytes]:
    """Append it to the start of a data directory, and add the end of a tar file."""
    return lambda: GOOD + b"".join(parts) + END


def only(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def compressed(program: str, data: Callable[[], bytes]) -> Callable[[], bytes]:
    options = {"gzip": ["-c"], "zstd": ["-cq"], "xz": ["-c0"], "bzip2": ["-c"], "lz4": ["-cq"]}[program]
    return lambda: subprocess.run([program, *options], input=data(), capture_output=True, check=True).stdout


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../PG_VERSION", "17\n")
    return buffer.getvalue()


def many_files(count: int) -> bytes:
    return b"".join(header(b"base/%d" % number) for number in range(count)) + END


def sparse_pax(size: int, *regions: tuple[int, int], data: bytes = b"") -> bytes:
    """Return a sparse file in PAX 1.0 format: the map precedes the data."""
    text = b"".join(b"%d\n" % number for number in (len(regions), *(part for each in regions for part in each)))
    body = padded(text) + data
    names = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"holes"))
    return pax(*names, (b"GNU.sparse.realsize", b"%d" % size)) + header(b"holes", size=len(body)) + padded(body)


def sparse_text(text: bytes, size: bytes = b"100") -> bytes:
    names = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"holes"))
    return pax(*names, (b"GNU.sparse.realsize", size)) + header(b"holes", size=len(padded(text))) + padded(text)


def sparse_gnu(*numbers: int, size: int) -> bytes:
    """Return a sparse file in old GNU format, with its map in the header."""
    fields = b"".join(octal(number, 12) for number in numbers).ljust(24 * 4, b"\0")[:96]
    found = bytearray(header(b"holes", b"S", size=BLOCK, magic=b"ustar  \0"))
    found[386:482] = fields
    found[483:495] = octal(size, 12)
    found[148:156] = b" " * 8
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found) + bytes(BLOCK)


def _unsafe(*parts: bytes) -> Archive:
    return Archive(after_good(*parts), frozenset({UNSAFE}))


def _broken(*parts: bytes, codes: frozenset[str] = frozenset({DAMAGED, CUT, UNKNOWN})) -> Archive:
    return Archive(after_good(*parts), codes)


def _any(*parts: bytes) -> Archive:
    """Return a case that may be refused or unpacked harmlessly."""
    return Archive(after_good(*parts), frozenset({TAKEN, UNSAFE, DAMAGED, CUT, UNKNOWN}))


def _unknown(data: bytes) -> Archive:
    return Archive(only(data), frozenset({UNKNOWN}))


NAMES = {
    "climbs": _unsafe(file(b"../outside")),
    "climbs in the middle": _unsafe(file(b"base/../../outside")),
    "climbs and comes back": _unsafe(file(b"../target/base/x")),
    "climbs as a directory": _unsafe(header(b"../outside/", b"5")),
    "dots alone": _unsafe(header(b"..", b"5")),
    "climbs to stay inside": _unsafe(file(b"base/../x")),
    "absolute": _unsafe(file(b"/etc/outside")),
    "absolute with two slashes": _unsafe(file(b"//etc/outside")),
    "absolute as a directory": _unsafe(header(b"/outside/", b"5")),
    "absolute by its prefix": _unsafe(file(b"outside", prefix=b"/etc")),
    "climbs by its prefix": _unsafe(file(b"outside", prefix=b"..")),
    "climbs by PAX": _unsafe(pax((b"path", b"../../outside")), file(b"harmless")),
    "absolute by PAX": _unsafe(pax((b"path", b"/etc/outside")), file(b"harmless")),
    "climbs by a global PAX header": _any(pax((b"path", b"../../outside"), kind=b"g"), file(b"harmless")),
    "climbs by GNU's long name": _unsafe(long_name(b"base/" + b"x/../" * 60 + b"../../outside"), file(b"harmless")),
    "climbs by the name of a sparse file": _any(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"../outside")),
        file(b"harmless", padded(b"0\n")),
    ),
    "backslashes": _any(file(b"..\\..\\outside")),
    "empty": _any(file(b"")),
    "a dot": _any(file(b".")),
    "slashes": _any(file(b"base///")),
    "a file with a slash behind": _any(header(b"PG_VERSION/", b"0", size=3) + padded(b"17\n")),
    "a component of 300 characters": _any(long_name(b"x" * 300), file(b"harmless")),
    "a path of 5000 characters": _any(long_name(b"/".join([b"d" * 200] * 25)), file(b"harmless")),
    "deep": _unsafe(long_name(b"d/" * 5000 + b"x"), file(b"harmless")),
    "not UTF-8": _any(file(b"base/\xff\xfe\xc0\xaf")),
    "an overlong slash": _any(file(b"..\xc0\xaf..\xc0\xafoutside")),
    "control characters": _any(file(b"base/\x1b[31m\n\r\x07")),
    "a NUL by PAX": _any(pax((b"path", b"base/x\x00/../../outside")), file(b"harmless")),
    "a lone surrogate by PAX": _any(pax((b"path", b"\xed\xa0\x80")), file(b"harmless")),
    "another character set by PAX": _any(pax((b"hdrcharset", b"BINARY"), (b"path", b"\xff")), file(b"harmless")),
    "twice": _any(file(b"base/1", b"first"), file(b"base/1", b"second")),
    "in capitals": _any(file(b"pg_version", b"9\n"), file(b"Global/PG_CONTROL")),
    "composed in two ways": _any(file("base/é".encode()), file("base/e\u0301".encode())),
    "a file where a directory is": _any(file(b"global")),
    "a directory where a file is": _any(header(b"PG_VERSION/", b"5")),
    "a file below a file": _any(file(b"PG_VERSION/x")),
}

KINDS = {
    "a symlink to a directory outside": _unsafe(header(b"pg_wal", b"2", link=b"/etc")),
    "a symlink that climbs": _unsafe(header(b"pg_wal", b"2", link=b"../../etc")),
    "a symlink inside": _unsafe(header(b"pg_wal", b"2", link=b"base")),
    "a symlink and a file through it": _unsafe(header(b"link", b"2", link=b"/etc"), file(b"link/outside")),
    "a symlink by PAX": _unsafe(pax((b"linkpath", b"/etc/shadow")), header(b"postgresql.conf", b"2", link=b"x")),
    "a symlink by GNU's long link": _unsafe(long_name(b"/etc/" * 30, b"K"), header(b"link", b"2")),
    "a symlink in place of a file": _unsafe(header(b"PG_VERSION", b"2", link=b"/etc/shadow")),
    "a hard link outside": _unsafe(header(b"base/1", b"1", link=b"/etc/shadow")),
    "a hard link inside": _unsafe(header(b"base/1", b"1", link=b"PG_VERSION")),
    "a character device": _unsafe(header(b"base/1", b"3")),
    "a block device": _unsafe(header(b"base/1", b"4")),
    "a pipe": _unsafe(header(b"base/1", b"6")),
    "a pipe in place of the version": Archive(only(header(b"PG_VERSION", b"6") + END), frozenset({UNSAFE})),
    "setuid": _any(file(b"base/1", mode=0o7777)),
    "a contiguous file": _any(header(b"base/1", b"7", size=1) + padded(b"x")),
    "an unknown kind": _any(header(b"base/1", b"Z", size=1) + padded(b"x")),
    "a directory of GNU's incremental dumps": _any(header(b"base", b"D", size=4) + padded(b"Yx\0\0")),
    "the second part of a volume": _any(header(b"base/1", b"M", size=1) + padded(b"x")),
    "the label of a volume": _any(header(b"label", b"V")),
    "Solaris's extended header": _any(header(b"x", b"X", size=3) + padded(b"abc"), file(b"base/1")),
    "a directory with content": _any(header(b"base/", b"5", size=BLOCK), b"x" * BLOCK),
}

HEADERS = {
    "a wrong checksum at once": Archive(only(header(b"x", checksum=b"000000\0 ") + END), frozenset({UNKNOWN, DAMAGED})),
    "a wrong checksum later": _broken(header(b"x", checksum=b"777777\0 ")),
    "a checksum that is not a number": _broken(header(b"x", checksum=b"zzzzzzzz")),
    "a size of 8 GiB": _broken(header(b"base/1", size=8 * 2**30 - 1)),
    "a size of 8 EiB": _broken(header(b"base/1", size=base256(2**63 - 1, 12))),
    "a size of 88 bits": _broken(header(b"base/1", size=base256(2**87, 12))),
    "a negative size": _any(header(b"base/1", size=base256(-1, 12))),
    "a size far below zero": _broken(header(b"base/1", size=base256(-(2**40), 12))),
    "a size that is not a number": _broken(header(b"base/1", size=b"eight bytes\0")),
    "a size of blanks": _any(header(b"base/1", size=b" " * 12)),
    "a size by PAX": _broken(pax((b"size", b"9" * 30)), header(b"base/1")),
    "a negative size by PAX": _any(pax((b"size", b"-1024")), header(b"base/1")),
    "a size of words by PAX": _any(pax((b"size", b"many")), header(b"base/1")),
    "a size of ten thousand digits by PAX": _any(pax((b"size", b"9" * 10_000)), header(b"base/1")),
    "a time beyond all time": _any(file(b"base/1", mtime=base256(2**87, 12))),
    "a time before all time": _any(file(b"base/1", mtime=base256(-(2**80), 12))),
    "a time that is none by PAX": _any(pax((b"mtime", b"nan")), file(b"base/1")),
    "an owner below zero": _any(file(b"base/1", uid=base256(-(2**50), 8))),
    "a PAX record that is longer than its header": _any(pax(raw=b"9999999 path=x\n"), file(b"base/1")),
    "a PAX record of no length": _any(pax(raw=b"0 path=x\n"), file(b"base/1")),
    "a PAX record of a negative length": _any(pax(raw=b"-5 path=x\n"), file(b"base/1")),
    "a PAX record without a value": _any(pax(raw=b"7 path\n"), file(b"base/1")),
    "a PAX header of noise": _any(pax(raw=bytes(range(256)) * 4), file(b"base/1")),
    "a PAX header for nothing": _any(pax((b"path", b"x"))),
    "a thousand PAX headers in a row": _any(pax((b"path", b"x")) * 2000, file(b"base/1")),
    "a thousand long names in a row": _any(long_name(b"x") * 2000, file(b"base/1")),
    "a long name of two gigabytes": _broken(header(b"././@LongLink", b"L", size=2**31)),
    "a long name of no length": _any(header(b"././@LongLink", b"L", size=0), file(b"base/1")),
    "a PAX header of two gigabytes": _broken(header(b"PaxHeader", b"x", size=2**31)),
    "a hundred thousand global records": _any(pax(*((b"k%d" % n, b"v") for n in range(20_000)), kind=b"g"), file(b"b")),
    "another magic": _any(header(b"base/1", magic=b"\xff" * 8)),
    "the old format": _any(header(b"base/1", b"\0", magic=bytes(8))),
}

HOLES = {
    "a map that runs backwards": _any(sparse_pax(4096, (2048, 512), (0, 512), data=bytes(1024))),
    "a map that overlaps": _any(sparse_pax(4096, (0, 1024), (512, 1024), data=bytes(2048))),
    "a map beyond the end": _any(sparse_pax(512, (2**40, 512), data=bytes(512))),
    "a map below zero": _any(sparse_pax(4096, (-512, 512), data=bytes(512))),
    "regions of no length": _any(sparse_pax(4096, *((n, 0) for n in range(2000)))),
    "a map that promises more than there is": _broken(sparse_pax(10**7, (0, 10**7), data=bytes(512))),
    "a map that is not a number": _any(sparse_text(b"one\ntwo\nthree\n")),
    "a map without an end": _any(sparse_text(b"99999999\n1\n")),
    "a map with a negative length": _any(sparse_text(b"-1\n")),
    "a size below zero": _any(sparse_text(b"0\n", size=b"-4096")),
    "a size that is not a number": _any(sparse_text(b"0\n", size=b"much")),
    "an odd list by PAX 0.1": _any(
        pax((b"GNU.sparse.map", b"0,1,2"), (b"GNU.sparse.size", b"10"), (b"GNU.sparse.numblocks", b"2")), file(b"h")
    ),
    "a list of words by PAX 0.1": _any(pax((b"GNU.sparse.map", b"a,b"), (b"GNU.sparse.size", b"10")), file(b"h")),
    "offsets without lengths by PAX 0.0": _any(
        pax((b"GNU.sparse.size", b"10"), (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"5")), file(b"h")
    ),
    "GNU's own, backwards": _any(sparse_gnu(4096, 512, 0, 512, size=8192)),
    "GNU's own, beyond": _any(sparse_gnu(2**32, 512, size=512)),
}  # fmt: skip

_TAR = after_good(file(b"base/1", b"row" * 50_000))
COMPRESSED = {
    **{
        f"{program} and noise behind": Archive(
            lambda program=program: compressed(program, _TAR)() + b"\x00noise" * 50,  # type: ignore[misc]
            frozenset({TAKEN, DAMAGED, CUT}),
        )
        for program in ("gzip", "zstd", "xz", "bzip2", "lz4")
    },
    **{
        f"{program} cut in the middle": Archive(
            lambda program=program: (whole := compressed(program, _TAR)())[: len(whole) // 2],  # type: ignore[misc]
            frozenset({DAMAGED, CUT, UNKNOWN}),
        )
        for program in ("gzip", "zstd", "xz", "bzip2", "lz4")
    },
    **{
        f"{program} of {program}": Archive(compressed(program, compressed(program, _TAR)), frozenset({UNKNOWN, CUT}))
        for program in ("gzip", "zstd", "xz", "bzip2", "lz4")
    },
    "two gzips, one tar behind the other": Archive(
        lambda: gzip.compress(_TAR()) + gzip.compress(GOOD + file(b"../outside") + END), frozenset({DAMAGED})
    ),
    "gzip with a name that climbs": Archive(
        lambda: gzip.compress(_TAR())[:3] + b"\x08" + gzip.compress(_TAR())[4:10] + b"../../outside\0"
        + gzip.compress(_TAR())[10:],
        frozenset({TAKEN}),
    ),
    "gzip with reserved flags": Archive(
        lambda: b"\x1f\x8b\x08\xff" + gzip.compress(_TAR())[4:], frozenset({DAMAGED, CUT})
    ),
    "gzip with a wrong checksum": Archive(
        lambda: gzip.compress(_TAR())[:-8] + b"\xff" * 8, frozenset({DAMAGED})
    ),
    "gzip's magic and no more": Archive(only(b"\x1f\x8b"), frozenset({DAMAGED, CUT})),
    "zstd's magic and noise": Archive(only(b"\x28\xb5\x2f\xfd" + b"\xff" * 100), frozenset({DAMAGED, CUT})),
    "zstd with a window of two gigabytes": Archive(
        only(b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"), frozenset({DAMAGED, CUT})
    ),
    "xz with a filter nobody knows": Archive(
        only(b"\xfd7zXZ\x00\x00\x0f" + bytes(24)), frozenset({DAMAGED, CUT})
    ),
    "bzip2 with an impossible block": Archive(only(b"BZh0" + b"\xff" * 40), frozenset({DAMAGED, CUT})),
    "lz4 with a block of two gigabytes": Archive(
        only(b"\x04\x22\x4d\x18\x64\x40\xa7" + b"\xff\xff\xff\x7f" + bytes(100)), frozenset({DAMAGED, CUT})
    ),
}  # fmt: skip

FOREIGN = {
    "zip": Archive(zipped, frozenset({UNKNOWN})),
    "7z": _unknown(b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(600)),
    "rar": _unknown(b"Rar!\x1a\x07\x01\x00" + bytes(600)),
    "cpio": _unknown(b"070701" + b"0" * 104 + b"../outside\0" + bytes(600)),
    "ar": _unknown(b"!<arch>\n../outside      0           0     0     644     4         `\nevil" + bytes(600)),
    "compress": _unknown(b"\x1f\x9d\x90" + bytes(600)),
    "lzip": _unknown(b"LZIP\x01\x0c" + bytes(600)),
    "lzma of old": _unknown(lzma.compress(GOOD + END, format=lzma.FORMAT_ALONE)),
    "an ISO image": _unknown(bytes(0x8001) + b"CD001" + bytes(600)),
    "squashfs": _unknown(b"hsqs" + bytes(600)),
    "a program": _unknown(b"\x7fELF\x02\x01\x01" + bytes(600)),
    "a script": _unknown(b"#!/bin/sh\nid >/outside\n" + b"#" * 600),
    "zeros": _unknown(bytes(10_240)),
    "nothing": _unknown(b""),
    "one byte": _unknown(b"u"),
    "bzip2 of nothing": Archive(lambda: bz2.compress(b""), frozenset({CUT, UNKNOWN})),
    "xz of nothing": Archive(lambda: lzma.compress(b""), frozenset({CUT, UNKNOWN})),
}

ENDS = {
    "no end": Archive(only(GOOD), frozenset({CUT})),
    "one block of zeros": Archive(only(GOOD + bytes(BLOCK)), frozenset({CUT})),
    "two archives, one behind the other": Archive(only(GOOD + END + GOOD + END), frozenset({DAMAGED})),
    "a climbing name behind the end": Archive(only(GOOD + END + file(b"../outside") + END), frozenset({DAMAGED})),
    "half a header": Archive(only(GOOD + header(b"x")[:300]), frozenset({CUT, DAMAGED})),
    "half a file": Archive(only(GOOD + header(b"base/1", size=4096) + bytes(1000)), frozenset({CUT})),
    "three thousand files": Archive(lambda: GOOD + many_files(3000), frozenset({TAKEN})),
}

ARCHIVES: dict[str, Archive] = {
    f"{group}: {name}": archive
    for group, archives in {
        "a name": NAMES, "a kind": KINDS, "a header": HEADERS, "a hole": HOLES, "compression": COMPRESSED,
        "a format": FOREIGN, "an end": ENDS,
    }.items()
    for name, archive in archives.items()
}  # fmt: skip
