"""btrfs subvolumes by ioctl, relative to directory descriptors; independent of images and instances.

The numbers and structures are those of linux/btrfs.h. No call needs CAP_SYS_ADMIN if the filesystem is mounted with
`user_subvol_rm_allowed`. Names are single path components. Every failure is an OSError with its errno.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

_SYNC = 0x9408
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_CREATE_V2 = 0x50009418
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_SPACE_INFO = 0xC0109414
_DEV_INFO = 0xD000941E
_FS_INFO = 0x8400941F
_GET_SUBVOL_INFO = 0x81F8943C
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E

_READ_ONLY = 1 << 1
_QGROUP_INHERIT = 1 << 2
_METADATA, _GLOBAL_RESERVE = 1 << 2, 1 << 49  # two types of block groups
_SUBVOLUME_INODE = 256  # the inode of every subvolume's top directory
_MOST_NAMES = 100_000  # the most names of directories to visit, at most 255 bytes each
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Subvolume:
    """The properties of a subvolume."""

    id: int
    uuid: str
    parent_uuid: str
    read_only: bool


@contextmanager
def directory(name: str | Path, parent: int | None = None) -> Iterator[int]:
    """Open a directory that is not a link; yield its descriptor, and close it at the end."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _component(name: str) -> bytes:
    if not name or "/" in name or name in {".", ".."} or len(name) > 255:
        raise ValueError(f"not a single path component: {name!r}")
    return os.fsencode(name)


def is_subvolume(descriptor: int) -> bool:
    """Return whether the directory is the top of a subvolume."""
    return os.fstat(descriptor).st_ino == _SUBVOLUME_INODE


def create(parent: int, name: str, group: int | None = None) -> None:
    """Create an empty subvolume in a directory and a quota group. Raises FileNotFoundError if the group is missing."""
    _create(parent, _SUBVOL_CREATE_V2, 0, 0, name, group)


def snapshot(source: int, parent: int, name: str, *, read_only: bool, group: int | None = None) -> None:
    """Snapshot the source subvolume into the parent directory, in the quota group, and commit a transaction.

    Raises FileExistsError if the name exists: unlike the command line tool, this never nests the snapshot in it.
    Raises FileNotFoundError if the group does not exist.
    """
    _create(parent, _SNAP_CREATE_V2, source, _READ_ONLY if read_only else 0, name, group)


def _create(parent: int, request: int, source: int, flags: int, name: str, group: int | None) -> None:
    # struct btrfs_qgroup_inherit: flags, number of groups, two counts that must be 0, no limits, the one group.
    inherit = array.array("Q", [] if group is None else [0, 1, 0, 0, 0, 0, 0, 0, 0, group])
    address, _ = inherit.buffer_info()
    if group is None:
        arguments = struct.pack("=qQQ4Q4040s", source, 0, flags, 0, 0, 0, 0, _component(name))
    else:
        size = len(inherit) * inherit.itemsize
        flags |= _QGROUP_INHERIT
        arguments = struct.pack("=qQQ4Q4040s", source, 0, flags, size, address, 0, 0, _component(name))
    fcntl.ioctl(parent, request, bytearray(arguments))


def sync(descriptor: int) -> None:
    """Start a commit, after which the kernel frees deleted data; do not wait for it."""
    fcntl.ioctl(descriptor, _SYNC)


def metadata_room(descriptor: int) -> int:
    """Return how many bytes of metadata can still be written, in allocated and in unallocated space."""
    information = bytearray(1024)
    fcntl.ioctl(descriptor, _FS_INFO, information)
    (last_device,) = struct.unpack_from("=Q", information)
    unallocated = 0
    for device in range(1, last_device + 1):
        buffer = bytearray(4096)
        struct.pack_into("=Q", buffer, 0, device)
        try:
            fcntl.ioctl(descriptor, _DEV_INFO, buffer)
        except OSError as error:
            if error.errno != errno.ENODEV:  # the device was removed; ids are not reused
                raise
            continue
        used, total = struct.unpack_from("=QQ", buffer, 24)
        unallocated += total - used
    # The default profile stores metadata twice; for other profiles this estimate is too low, which is safe.
    room = unallocated // 2
    for kind, total, used in _spaces(descriptor):
        if kind & _METADATA:
            room += total - used
        elif kind & _GLOBAL_RESERVE:
            room -= total - used
    return max(0, room)


def _spaces(descriptor: int) -> list[tuple[int, int, int]]:
    """Return the type, the allocated bytes and the used bytes of each space."""
    slots = 16  # four types, each in two profiles while a balance converts it
    buffer = bytearray(16 + 24 * slots)
    struct.pack_into("=QQ", buffer, 0, slots, 0)
    fcntl.ioctl(descriptor, _SPACE_INFO, buffer)
    (found,) = struct.unpack_from("=Q", buffer, 8)
    return [struct.unpack_from("=QQQ", buffer, 16 + 24 * index) for index in range(found)]


def info(descriptor: int) -> Subvolume:
    """Return the properties of the subvolume that contains the descriptor."""
    buffer = bytearray(504)
    fcntl.ioctl(descriptor, _GET_SUBVOL_INFO, buffer)
    (number,) = struct.unpack_from("=Q", buffer, 0)
    flags, own, parent = struct.unpack_from("=Q16s16s", buffer, 288)
    return Subvolume(number, str(uuid.UUID(bytes=own)), str(uuid.UUID(bytes=parent)), bool(flags & 1))


def clear_read_only(descriptor: int) -> None:
    """Make the subvolume writable; its other flags stay."""
    buffer = bytearray(8)
    fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, buffer)
    (flags,) = struct.unpack("=Q", buffer)
    if flags & _READ_ONLY:
        fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, struct.pack("=Q", flags & ~_READ_ONLY))


def filesystem_id(descriptor: int) -> str:
    """Return the uuid of the btrfs filesystem. Raises OSError (ENOTTY) for another filesystem."""
    buffer = bytearray(1024)
    fcntl.ioctl(descriptor, _FS_INFO, buffer)
    return str(uuid.UUID(bytes=bytes(buffer[16:32])))


def nested(descriptor: int) -> Iterator[tuple[int, str]]:
    """Yield directory and name of each subvolume directly below this one.

    The directory is a descriptor, valid until the next step. The owner of the subvolume created it, so links in its
    path are not followed.
    """
    references = list(_references(descriptor))
    for index, (tree, directory_id) in enumerate(references):
        try:
            path, name = _look_up(descriptor, tree, directory_id)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            # The kernel returns at most about 3,800 bytes of path.
            yield from islice(_walk(descriptor), len(references) - index)
            return
        holder = os.dup(descriptor)
        try:
            for component in filter(None, path.split("/")):
                below = os.open(component, _DIRECTORY, dir_fd=holder)
                os.close(holder)
                holder = below
            yield holder, name
        finally:
            os.close(holder)


def _look_up(descriptor: int, tree: int, directory_id: int) -> tuple[str, str]:
    """Return the directory's path and the name of a subvolume."""
    lookup = bytearray(4096)
    struct.pack_into("=QQ", lookup, 0, directory_id, tree)
    fcntl.ioctl(descriptor, _INO_LOOKUP_USER, lookup)
    name, path = (os.fsdecode(bytes(part).split(b"\0", 1)[0]) for part in (lookup[16:272], lookup[272:]))
    return path, name


def _walk(top: int) -> Iterator[tuple[int, str]]:
    """Yield the same as `nested`, by walking all directories. Raises OSError (E2BIG) if there are too many.

    Directories may be nested deeper than the limit of open files, so only one is open at a time.
    """
    here = os.dup(top)
    above: list[tuple[tuple[int, int], list[str]]] = []  # each directory on the path, and its unvisited children
    waiting = 0
    try:
        while True:
            subvolumes, directories = _directories(here, _MOST_NAMES - waiting)
            for name in subvolumes:
                yield here, name
            above.append((_identity(here), directories))
            waiting += len(directories)
            while not above[-1][1]:
                above.pop()
                if not above:
                    return
                here = _replace(here, "..")
                if _identity(here) != above[-1][0]:
                    raise OSError(errno.ESTALE, "a directory was moved at the same time")
            waiting -= 1
            here = _replace(here, above[-1][1].pop())
    finally:
        os.close(here)


def _directories(descriptor: int, most: int) -> tuple[list[str], list[str]]:
    """Return the names of the subvolumes and of the other directories in a directory."""
    found: tuple[list[str], list[str]] = [], []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                status = os.stat(entry.name, dir_fd=descriptor, follow_symlinks=False)
                found[status.st_ino != _SUBVOLUME_INODE].append(entry.name)
                if len(found[0]) + len(found[1]) > most:
                    raise OSError(errno.E2BIG, "too many directories to look through for nested subvolumes")
    return found


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _replace(descriptor: int, name: str) -> int:
    below = os.open(name, _DIRECTORY, dir_fd=descriptor)
    os.close(descriptor)
    return below


def _references(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield the tree id and the inode of the parent directory of each subvolume directly below this one."""
    minimum = 0
    while True:
        references = bytearray(4096)
        struct.pack_into("=Q", references, 0, minimum)
        try:
            fcntl.ioctl(descriptor, _GET_SUBVOL_ROOTREF, references)
            more = False
        except OSError as error:
            if error.errno != errno.EOVERFLOW:  # EOVERFLOW: 255 entries were returned, and there are more
                raise
            more = True
        for index in range(references[4088]):
            tree, directory_id = struct.unpack_from("=QQ", references, 8 + 16 * index)
            yield tree, directory_id
            minimum = tree + 1
        if not more:
            return


def delete(parent: int, name: str) -> None:
    """Delete a subvolume, read-only or not. Raises OSError (ENOTEMPTY) if another is nested in it."""
    with directory(name, parent) as descriptor:
        clear_read_only(descriptor)
    fcntl.ioctl(parent, _SNAP_DESTROY, bytearray(struct.pack("=q4088s", 0, _component(name))))
