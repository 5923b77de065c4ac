"""Creates, snapshots, lists and deletes subvolumes: one for each id in each place.

The places belong to root, so their entries are trusted; the content of an entry below its top directory is not read.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from draupnir_helper import btrfs, layout
from draupnir_helper.layout import Place

# The last attempt could not delete these entries of the trash, for these reasons.
_undeletable: dict[str, str] = {}

# Suffixes of files beside subvolumes.
_FILES = (layout.MANIFEST_SUFFIX, layout.ERROR_TEXT_SUFFIX, layout.REPORT_SUFFIX)

log = logging.getLogger(__name__)


@contextmanager
def opened(root: int, place: Place, some_id: int) -> Iterator[int]:
    """Open the subvolume's top directory. Raises FileNotFoundError if it does not exist."""
    with btrfs.directory(place, root) as parent, btrfs.directory(str(some_id), parent) as descriptor:
        yield descriptor


def find(root: int, place: Place, some_id: int) -> btrfs.Subvolume | None:
    """Return the properties of the subvolume, or None."""
    try:
        with opened(root, place, some_id) as descriptor:
            return btrfs.info(descriptor)
    except FileNotFoundError:
        return None


def owner(root: int, place: Place, some_id: int) -> int | None:
    """Return the uid that owns the subvolume's top directory, or None."""
    try:
        with opened(root, place, some_id) as descriptor:
            return os.fstat(descriptor).st_uid
    except FileNotFoundError:
        return None


def exists(root: int, place: Place, some_id: int) -> bool:
    """Return whether the place has an entry of that id."""
    with btrfs.directory(place, root) as parent:
        return _has(parent, str(some_id))


def make(root: int, place: Place, some_id: int, *, uid: int, gid: int, group: int | None) -> None:
    """Create an empty subvolume in a quota group, private to its owner. An existing one stays unchanged."""
    with btrfs.directory(place, root) as parent:
        if _has(parent, str(some_id)):
            return
        new = _clear_new(root, parent, some_id)
        btrfs.create(parent, new, group)
        give(parent, new, uid=uid, gid=gid)
        _rename(parent, new, str(some_id))


def copy(
    root: int,
    source: Place,
    target: Place,
    source_id: int,
    target_id: int,
    owner: tuple[int, int] | None,
    group: int | None = None,
) -> None:
    """Snapshot source to target, writable for an owner (uid, gid), or read-only without one."""
    with opened(root, source, source_id) as descriptor, btrfs.directory(target, root) as parent:
        if _has(parent, str(target_id)):
            return
        new = _clear_new(root, parent, target_id)
        btrfs.snapshot(descriptor, parent, new, read_only=owner is None, group=group)
        if owner is not None:
            give(parent, new, uid=owner[0], gid=owner[1])
        _rename(parent, new, str(target_id))


def give(parent: int, name: str, *, uid: int, gid: int) -> None:
    """Change the owner of a subvolume's top directory, and close it to all others."""
    with btrfs.directory(name, parent) as descriptor:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, stat.S_IRWXU)


def discard(root: int, place: Place, some_id: int) -> None:
    """Move the entry to the trash; do nothing if it does not exist."""
    with btrfs.directory(place, root) as parent:
        _discard(root, parent, str(some_id))


def sweep(root: int) -> None:
    """Move unfinished subvolumes to the trash. Call it only at the start of the helper, when no request runs."""
    for place in Place:
        with btrfs.directory(place, root) as parent:
            for name in os.listdir(parent):
                if name.startswith(layout.NEW_PREFIX) and name.endswith(_FILES):
                    os.unlink(name, dir_fd=parent)
                elif name.startswith(layout.NEW_PREFIX):
                    _discard(root, parent, name)


def ids(root: int, place: Place) -> tuple[list[int], list[str]]:
    """Return the ids of the place in ascending order, and the names of other files and directories."""
    known, unknown = [], []
    with btrfs.directory(place, root) as parent, os.scandir(parent) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            is_number = name.isascii() and name.isdecimal() and str(int(name)) == name
            if is_number and entry.is_dir(follow_symlinks=False):
                known.append(int(name))
            elif not name.endswith(_FILES):
                unknown.append(f"{place}/{name}")
    return sorted(known), sorted(unknown)


def empty_trash(root: int) -> int:
    """Delete the content of the trash, and return how many entries are left."""
    failures = {}
    with btrfs.directory(layout.TRASH, root) as trash:
        found = os.listdir(trash)
        for name in found:
            # A failure of one entry must not prevent the others; the next run tries it again.
            try:
                _lift_nested(trash, name)
                btrfs.delete(trash, name)
            except FileNotFoundError:
                continue  # already deleted by another thread
            except OSError as error:
                failures[name] = error.strerror or str(error)
        for name in failures.keys() - _undeletable.keys():
            log.error("trash/%s cannot be deleted: %s", name, failures[name])
        _undeletable.clear()
        _undeletable.update(failures)
        if len(failures) < len(found):
            # Without a sync, the space would be freed only after up to 30 s.
            btrfs.sync(trash)
        return len(os.listdir(trash))


def look_at_trash(root: int) -> tuple[int, list[str]]:
    """Return the number of entries in the trash, and up to 20 that could not be deleted, with reasons."""
    with btrfs.directory(layout.TRASH, root) as trash:
        names = os.listdir(trash)
    failures = _undeletable.copy()
    return len(names), [f"{name}: {failures[name]}" for name in sorted(failures.keys() & set(names))[:20]]


def _lift_nested(trash: int, name: str) -> None:
    """Move all subvolumes that are nested in an entry up to the trash itself.

    Its owner may have nested them to any depth, so this neither recurses nor keeps descriptors open.
    """
    waiting = [name]
    while waiting:
        with btrfs.directory(waiting.pop(), trash) as descriptor:
            btrfs.clear_read_only(descriptor)
            for holder, nested_name in btrfs.nested(descriptor):
                with btrfs.directory(nested_name, holder) as nested:
                    btrfs.clear_read_only(nested)
                lifted = f"nested-{time.time_ns()}"
                os.rename(nested_name, lifted, src_dir_fd=holder, dst_dir_fd=trash)
                waiting.append(lifted)


def _has(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _clear_new(root: int, parent: int, some_id: int) -> str:
    new = f"{layout.NEW_PREFIX}{some_id}"
    _discard(root, parent, new)
    return new


def _rename(parent: int, old: str, new: str) -> None:
    os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)


def _discard(root: int, parent: int, name: str) -> None:
    try:
        with btrfs.directory(name, parent) as descriptor:
            # A move to another directory changes `..` of the moved subvolume, so the subvolume must be writable.
            btrfs.clear_read_only(descriptor)
    except FileNotFoundError:
        return
    with btrfs.directory(layout.TRASH, root) as trash:
        os.rename(name, f"{name}-{time.time_ns()}", src_dir_fd=parent, dst_dir_fd=trash)
