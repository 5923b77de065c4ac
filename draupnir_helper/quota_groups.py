"""The program of draupnir-quota@.service, with CAP_SYS_ADMIN: sets up the btrfs quota groups in a root-owned file.

Must import only the standard library. The file has one line for each group: its id, its limit in bytes (0 removes the
group, unless it is in use), and optionally the id of a subvolume to assign to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
from contextlib import suppress

DATA = "/run/draupnir/data"
DIRECTORY = "/run/draupnir/quotas"
MAX_BYTES = 64 * 1024

# linux/btrfs.h
_QGROUP_ASSIGN = 0x40189429
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_LIMITS_REFERENCED = 1
_LEVEL_BITS = 48
_DIGITS = 19  # a 63-bit number has at most this many


def main(name: str) -> None:
    """Execute the orders in the file of that name."""
    _number(name)
    orders = [_parse(line) for line in _read(name).splitlines()]
    data = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for group, limit_bytes, member in orders:
        if limit_bytes == 0:
            _remove(data, group)
        else:
            _set_up(data, group, limit_bytes)
            if member:
                _assign(data, member, group)


def _read(name: str) -> str:
    directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    status = os.fstat(descriptor)
    if status.st_uid != 0 or not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
        sys.exit("the file is writable for others than root")
    if status.st_size > MAX_BYTES:
        sys.exit("the file is too long")
    return os.read(descriptor, MAX_BYTES).decode("ascii")


def _parse(line: str) -> tuple[int, int, int]:
    words = line.split(" ")
    if len(words) not in {2, 3}:
        sys.exit(f"not an order: {line!r}")
    group, limit_bytes, member = [*map(_number, words), 0][:3]
    # Only groups of our own level get limits. Any group may be removed, because the kernel refuses unless it is empty.
    if limit_bytes and group >> _LEVEL_BITS != 1:
        sys.exit(f"not a group of level 1: {group}")
    return group, limit_bytes, member


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) <= _DIGITS):
        sys.exit(f"not a number: {word!r}")
    return int(word)


def _set_up(data: int, group: int, limit_bytes: int) -> None:
    with suppress(FileExistsError):
        fcntl.ioctl(data, _QGROUP_CREATE, struct.pack("=QQ", 1, group))
    fcntl.ioctl(data, _QGROUP_LIMIT, bytearray(struct.pack("=6Q", group, _LIMITS_REFERENCED, limit_bytes, 0, 0, 0)))


def _assign(data: int, member: int, group: int) -> None:
    with suppress(FileExistsError):
        fcntl.ioctl(data, _QGROUP_ASSIGN, struct.pack("=QQQ", 1, member, group))


def _remove(data: int, group: int) -> None:
    try:
        fcntl.ioctl(data, _QGROUP_CREATE, struct.pack("=QQ", 0, group))
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOENT}:
            raise


if __name__ == "__main__":
    main(sys.argv[1])
