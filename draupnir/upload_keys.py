"""The public keys that may upload: a file with one OpenSSH key on each line, which sshd reads for the user `upload`."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

PATH = Path("/etc/draupnir/upload_keys")
COMMAND = Path("/usr/lib/draupnir/upload-keys")
MAX_FILE_BYTES = 16 * 1024
MIN_RSA_BITS = 2048

_KEY_TYPE = re.compile(
    r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
)

# A name that has only digits would be ambiguous with a number in the list.
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9._@-]{1,100}", re.ASCII)


class UploadKeyError(Exception):
    """The key cannot be added, listed or removed. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class UploadKey:
    """One public key: its type, its base64 text, and the words after it."""

    kind: str
    blob: str
    comment: str

    @property
    def line(self) -> str:
        """Return the key in the format of sshd."""
        return f"{self.kind} {self.blob} {self.comment}".rstrip()


def parse_file(content: bytes, source: str) -> UploadKey:
    """Parse the only public key of a `.pub` file. Errors name the file as `source`. Raises UploadKeyError."""
    if len(content) > MAX_FILE_BYTES:
        raise UploadKeyError(f"{source} is longer than {MAX_FILE_BYTES} bytes; give the .pub file of one key.")
    try:
        return parse(content.decode(), source)
    except UnicodeDecodeError as error:
        raise UploadKeyError(f"{source} is not text; give the .pub file as ssh-keygen made it.") from error


def parse(text: str, source: str) -> UploadKey:
    """Parse the only public key of the text. Errors name the text as `source`. Raises UploadKeyError."""
    if "PRIVATE KEY" in text:
        raise UploadKeyError(f"{source} is a private key; keep it secret and add its .pub file.")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise UploadKeyError(f"{source} has {len(lines)} keys; give a file with exactly one, such as id_ed25519.pub.")
    kind, _, rest = lines[0].partition(" ")
    if not _KEY_TYPE.fullmatch(kind):
        raise UploadKeyError(
            f"{source} does not begin with a key type such as ssh-ed25519; "
            "options before a key (command=, from=) and certificates are not supported; give the original .pub file."
        )
    blob, _, comment = rest.strip().partition(" ")
    if not lines[0].isprintable():
        raise UploadKeyError(f"{source} has unprintable characters; give the .pub file as ssh-keygen made it.")
    return UploadKey(kind, blob, comment.strip())


def fingerprint(key: UploadKey) -> str:
    """Return the output of `ssh-keygen -l` (bits, hash, comment, type). Raises UploadKeyError for an invalid key."""
    try:
        result = subprocess.run(
            ["ssh-keygen", "-l", "-f", "-"],
            input=key.line + "\n",
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UploadKeyError(f"ssh-keygen could not be run ({error}); install openssh-client.") from error
    if result.returncode != 0:
        raise UploadKeyError(
            "ssh-keygen does not accept the file as a public key; give the .pub file as ssh-keygen made it."
        )
    return result.stdout.strip()


def read_all(path: Path) -> list[UploadKey]:
    """Return the keys of the file in order, ignoring other lines. Raises UploadKeyError."""
    return [key for _, key in _numbered_keys(_read_lines(path))]


def add(path: Path, key: UploadKey, name: str | None = None) -> str:
    """Add a key that ssh-keygen accepts, and return its fingerprint. Raises UploadKeyError, also for an existing key.

    Lists and the journal show `name`, or the comment of the key, with a number appended if the name exists already.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise UploadKeyError(
            f"{name!r} is not a valid name; give up to 100 letters, digits and ._@-, not digits alone."
        )
    summary = fingerprint(key)
    bits = summary.partition(" ")[0]
    if key.kind == "ssh-rsa" and bits.isdecimal() and int(bits) < MIN_RSA_BITS:
        raise UploadKeyError(f"an RSA key of {bits} bits is too short; make one with `ssh-keygen -t ed25519`.")
    with _locked(path):
        lines = _read_lines(path)
        for number, (_, known) in enumerate(_numbered_keys(lines), start=1):
            if known.blob == key.blob:
                raise UploadKeyError(f"this key already exists as number {number} ({known.comment or 'no comment'}).")
        taken = {known.comment for _, known in _numbered_keys(lines)}
        if name in taken:
            raise UploadKeyError(f"another key is named {name!r}; choose another name.")
        key = dataclasses.replace(key, comment=name or _free_name(key.comment or "key", taken))
        _write_lines(path, [*lines, key.line])
    return fingerprint(key)


def _free_name(wanted: str, taken: Collection[str]) -> str:
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([wanted], numbered) if name not in taken)


def remove(path: Path, which: str) -> UploadKey:
    """Remove the key with this number (as listed, from 1) or this name. Raises UploadKeyError."""
    with _locked(path):
        lines = _read_lines(path)
        keys = _numbered_keys(lines)
        numbers = [number for number, (_, key) in enumerate(keys, start=1) if which in (str(number), key.comment)]
        if not numbers:
            raise UploadKeyError(f"key {which!r} not found; see `draupnir upload-key list`.")
        if len(numbers) > 1:
            listed = ", ".join(map(str, numbers))
            raise UploadKeyError(f"the keys {listed} all match {which!r}; remove one of them by its number.")
        index, key = keys[numbers[0] - 1]
        _write_lines(path, lines[:index] + lines[index + 1 :])
    return key


def _numbered_keys(lines: list[str]) -> list[tuple[int, UploadKey]]:
    keys = []
    for index, line in enumerate(lines):
        with contextlib.suppress(UploadKeyError):  # comments, and lines an administrator wrote by hand
            keys.append((index, parse(line, "the line")))
    return keys


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UploadKeyError(f"{path} cannot be read ({error}); correct the file by hand.") from error


def _write_lines(path: Path, lines: list[str]) -> None:
    """Replace the file atomically, so that sshd never reads a part of it."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
                # sshd's command reads it as the user nobody.
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            Path(name).rename(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UploadKeyError(f"{path} cannot be written ({error}); run this as root.") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UploadKeyError(f"{path.parent} cannot be opened ({error.strerror}); run this as root.") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
        os.fsync(directory)
    finally:
        os.close(directory)
