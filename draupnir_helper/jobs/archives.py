"""Recognises archives by content, decompresses them with the usual programs, and unpacks files and directories only.

Archives are untrusted input. Names that are absolute or point upwards are refused, and so are links, devices and
pipes. The job sets modes and owners. It does not rely on Python's own extraction filter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from draupnir_helper.jobs.budget import ENTRY_BYTES, Budget
from draupnir_helper.jobs.reports import JobError

_CHUNK_BYTES = 1024 * 1024
_MAX_DEPTH = 32
# tarfile reads headers and the names in them. This limits one read, because a header may claim any size.
_HEADER_BYTES = 1024 * 1024
# The kernel returns these errors if a name cannot be created at its place in the archive.
_IMPOSSIBLE = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}
# tarfile also raises these, for invalid numbers and for endless chains of headers.
_CONFUSED = (ValueError, OverflowError, RecursionError)
_DECOMPRESSORS: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (b"\x1f\x8b", ("/usr/bin/gzip", "-dc")),
    (b"\x28\xb5\x2f\xfd", ("/usr/bin/zstd", "-dcq", "--long=31")),
    (b"\xfd7zXZ\x00", ("/usr/bin/xz", "-dc", "-T0")),
    (b"BZh", ("/usr/bin/bzip2", "-dc")),
    (b"\x04\x22\x4d\x18", ("/usr/bin/lz4", "-dcq")),
    (b"\x02\x21\x4c\x18", ("/usr/bin/lz4", "-dcq")),  # lz4 -l
)
# zstd and lz4 skip frames with one of sixteen magic numbers and a size. pzstd writes one before each frame.
_SKIPPABLE = b"\x2a\x4d\x18"
_MAX_SKIPPED = 16
_TAR_MAGIC_OFFSET = 257
_END_BYTES = 1024
_ENDS_EARLY = ("end of", "ends unexpectedly", "premature", "unfinished", "truncated")


def is_archive(path: Path) -> bool:
    """Return whether the content is a tar file or in a known compression format."""
    with path.open("rb") as file:
        head = _head(file)
    return head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar" or _decompressor(head) is not None


def _head(file: IO[bytes]) -> bytes:
    """Return the first bytes after skippable frames."""
    position = 0
    for _ in range(_MAX_SKIPPED):
        file.seek(position)
        head = file.read(_TAR_MAGIC_OFFSET + 8)
        if head[1:4] != _SKIPPABLE or head[0] >> 4 != 5:
            return head
        position += 8 + int.from_bytes(head[4:8], "little")
    return b""


def _decompressor(head: bytes) -> tuple[str, ...] | None:
    return next((command for magic, command in _DECOMPRESSORS if head.startswith(magic)), None)


class _Source:
    """A stream that tarfile reads forwards. It records its position and the position of the last non-zero byte.

    The kernel copies the content of members from the descriptor to their files. Python does not read it.
    """

    def __init__(self, descriptor: int, budget: Budget) -> None:
        self._descriptor = descriptor
        self.budget = budget
        self._piped = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self.count = 0
        self.content_end = 0

    def tell(self) -> int:
        return self.count

    def seek(self, position: int) -> None:
        if position < self.count:
            raise tarfile.ReadError("a header points backwards")
        while (left := position - self.count) and self.read(min(left, _HEADER_BYTES)):
            pass

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the stream."""
        if size > _HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        chunks = []
        while size > 0 and (data := os.read(self._descriptor, min(size, _CHUNK_BYTES))):
            # rstrip copies, so call it only if there is something to strip.
            content = len(data) if data[-1:] != b"\0" else len(data.rstrip(b"\0"))
            if content:
                self.content_end = self.count + content
            self.budget.take(len(data))
            self.count += len(data)
            size -= len(data)
            chunks.append(data)
        return b"".join(chunks)

    def transfer(self, target: int, size: int) -> int:
        """Move up to `size` bytes into the file, and return how many were moved. This is 0 at the end."""
        if self._piped:
            moved = os.splice(self._descriptor, target, size)
        else:
            # copy_file_range would share the extents of members that start on a block boundary. Each such member
            # would keep a whole extent of the archive, up to 128 MiB, on the disk after the upload is removed.
            moved = os.sendfile(target, self._descriptor, None, size)
        self.budget.take(moved)
        self.count += moved
        return moved

    def spend(self, size: int) -> int:
        """Count bytes that did not come from this archive."""
        self.budget.take(size)
        return size

    def drain(self) -> None:
        while self.read(_CHUNK_BYTES):
            pass


@contextmanager
def _decompressed(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """Yield the content, decompressed if necessary, and a function that returns how many bytes of the file are read.

    The decompressor shares the file's offset with us. Its exit code is checked at the end.
    """
    with path.open("rb", buffering=0) as file:
        command = _decompressor(_head(file))
        file.seek(0)
        if command is None:
            yield file, file.tell
            return
        with subprocess.Popen(
            command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            with suppress(PermissionError):  # a larger pipe is faster, but the kernel may refuse it
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
            try:
                yield process.stdout, lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR)
            except BaseException:
                process.kill()
                raise
            complaint = process.stderr.read(2000).decode(errors="replace").strip()
            if process.wait() != 0:
                raise _damaged(path, complaint)


def _damaged(path: Path, complaint: str) -> JobError:
    if any(words in complaint.lower() for words in _ENDS_EARLY):
        return _truncated(path)
    detail = f"{path.name} is damaged and cannot be decompressed ({complaint}); upload it again and finalise again."
    return JobError("damaged_archive", detail)


def _truncated(path: Path) -> JobError:
    detail = f"{path.name} ends too early, so its upload was probably interrupted; upload it again and finalise again."
    return JobError("truncated_archive", detail)


def unpack(path: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Unpack the archive into the existing target directory. Raises JobError, which names the archive."""
    total_bytes = path.stat().st_size
    problem: JobError | None = None
    with _decompressed(path) as (stream, position):
        source = _Source(stream.fileno(), Budget(path, target))
        try:
            with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[call-overload]
                for member in tar:
                    try:
                        _unpack_member(path, tar, source, member, target, lambda: progress(position(), total_bytes))
                    except OSError as error:
                        if error.errno not in _IMPOSSIBLE:
                            raise
                        reason = str(error.strerror).lower()
                        raise _unsafe(path, member.name, f"cannot be written ({reason})") from error
                    tar.members.clear()  # tarfile would keep every header it has seen
                end = tar.offset
            source.drain()
            problem = _judge_end(path, source, end)
        except tarfile.ReadError as error:
            source.drain()
            problem = _unreadable(path, source, error)
        except _CONFUSED:
            source.drain()
            problem = _damaged_tar(path, source.count)
    # An error of the decompressor, raised at the end of the block, is closer to the cause than the error of tar.
    if problem is not None:
        raise problem


def _judge_end(path: Path, source: _Source, end: int) -> JobError | None:
    """Return the failure of a tar file without the two zero blocks at its end; tarfile stops there without an error."""
    if source.content_end > end:
        return _damaged_tar(path, end)
    if source.count < end + _END_BYTES:
        return _truncated(path)
    return None


def _damaged_tar(path: Path, position: int) -> JobError:
    detail = f"{path.name} is damaged at byte {position} of the tar; upload it again and finalise again."
    return JobError("damaged_archive", detail)


def _unreadable(path: Path, source: _Source, error: tarfile.ReadError) -> JobError:
    if source.count == 0 or "unexpected end" in str(error):
        return _truncated(path)
    detail = f"{path.name} is not a tar archive ({error}); upload a tar of the data directory to a new image."
    return JobError("not_an_archive", detail)


def _unpack_member(
    path: Path,
    tar: tarfile.TarFile,
    source: _Source,
    member: tarfile.TarInfo,
    target: Path,
    advance: Callable[[], None],
) -> None:
    components = _components(path, member.name)
    source.budget.take(ENTRY_BYTES * len(components))
    destination = target.joinpath(*components)
    if member.isdir():
        destination.mkdir(parents=True, exist_ok=True)
        return
    if not member.isreg():
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a directory"
        raise _unsafe(path, member.name, f"is {kind}", " --dereference" if member.issym() else "")
    destination.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        if member.sparse is None:
            move: Callable[[int], int] = lambda size: source.transfer(descriptor, size)  # noqa: E731
        else:
            content = tar.extractfile(member)
            assert content is not None
            # The holes of a sparse file are not in the archive, but the job writes them, so they count.
            move = lambda size: source.spend(file.write(content.read(size)))  # noqa: E731
        left = member.size
        while left > 0:
            moved = move(min(left, _CHUNK_BYTES))
            if not moved:
                raise tarfile.ReadError("unexpected end of data")
            left -= moved
            advance()


def _components(path: Path, name: str) -> list[str]:
    components = [component for component in name.split("/") if component not in {"", "."}]
    if name.startswith("/"):
        raise _unsafe(path, name, "has an absolute name")
    if ".." in components:
        raise _unsafe(path, name, "leads out of the archive")
    if len(components) > _MAX_DEPTH:
        raise _unsafe(path, name, f"is nested more than {_MAX_DEPTH} levels deep")
    return components


def _unsafe(path: Path, name: str, what: str, option: str = "") -> JobError:
    shown = ascii(name)[1:-1][:200]
    detail = (
        f"{path.name} is refused, because its entry {shown} {what}. Pack the data directory with `tar{option}`, and "
        "upload the archive to a new image."
    )
    return JobError("unsafe_archive", detail)
