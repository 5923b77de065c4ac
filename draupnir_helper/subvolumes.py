"""One subvolume per id in each place: make, snapshot, publish under the final name, move to the trash, list.

The places belong to root, so their entries are ours; nothing inside an entry is looked at, beyond its top directory.
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

# Names of trash that could not be deleted when that was last tried, and why.
_undeletable: dict[str, str] = {}

# What lies beside subvolumes.
_FILES = (layout.MANIFEST_SUFFIX, layout.ERROR_TEXT_SUFFIX)

log = logging.getLogger(__name__)


@contextmanager
def opened(root: int, place: Place, some_id: int) -> Iterator[int]:
    """A descriptor of the subvolume's top directory; FileNotFoundError when there is none."""
    with btrfs.directory(place, root) as parent, btrfs.directory(str(some_id), parent) as descriptor:
        yield descriptor


def find(root: int, place: Place, some_id: int) -> btrfs.Subvolume | None:
    """What btrfs tells of the subvolume, if there is one."""
    try:
        with opened(root, place, some_id) as descriptor:
            return btrfs.info(descriptor)
    except FileNotFoundError:
        return None


def owner(root: int, place: Place, some_id: int) -> int | None:
    """The uid that owns the subvolume's top directory, if there is one."""
    try:
        with opened(root, place, some_id) as descriptor:
            return os.fstat(descriptor).st_uid
    except FileNotFoundError:
        return None


def exists(root: int, place: Place, some_id: int) -> bool:
    """Whether the place has an entry of that id."""
    with btrfs.directory(place, root) as parent:
        return _has(parent, str(some_id))


def make(root: int, place: Place, some_id: int, *, uid: int, gid: int, group: int | None) -> None:
    """An empty subvolume in a quota group, private to its owner; one that is there already stays as it is."""
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
    """Snapshot source to target, writable and handed to the owner (uid, gid), or read-only where there is none."""
    with opened(root, source, source_id) as descriptor, btrfs.directory(target, root) as parent:
        if _has(parent, str(target_id)):
            return
        new = _clear_new(root, parent, target_id)
        btrfs.snapshot(descriptor, parent, new, read_only=owner is None, group=group)
        if owner is not None:
            give(parent, new, uid=owner[0], gid=owner[1])
        _rename(parent, new, str(target_id))


def give(parent: int, name: str, *, uid: int, gid: int) -> None:
    """Hand a subvolume's top directory to its owner, and close it to everybody else."""
    with btrfs.directory(name, parent) as descriptor:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, stat.S_IRWXU)


def discard(root: int, place: Place, some_id: int) -> None:
    """Move the entry to the trash; an absent one is fine."""
    with btrfs.directory(place, root) as parent:
        _discard(root, parent, str(some_id))


def sweep(root: int) -> None:
    """Move what was never given its final name to the trash; for the start of the helper, when nothing is under way."""
    for place in Place:
        with btrfs.directory(place, root) as parent:
            for name in os.listdir(parent):
                if name.startswith(layout.NEW_PREFIX) and name.endswith(_FILES):
                    os.unlink(name, dir_fd=parent)
                elif name.startswith(layout.NEW_PREFIX):
                    _discard(root, parent, name)


def ids(root: int, place: Place) -> tuple[list[int], list[str]]:
    """The ids of the place, ascending, and the names in it that are none, or not those of directories."""
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
    """Delete what lies in the trash and say how much had to stay."""
    failures = {}
    with btrfs.directory(layout.TRASH, root) as trash:
        found = os.listdir(trash)
        for name in found:
            # Whatever keeps one entry there must not keep the others; it is tried again next time.
            try:
                _lift_nested(trash, name)
                btrfs.delete(trash, name)
            except FileNotFoundError:
                continue  # somebody else was quicker
            except OSError as error:
                failures[name] = error.strerror or str(error)
        for name in failures.keys() - _undeletable.keys():
            log.error("trash/%s cannot be deleted: %s", name, failures[name])
        _undeletable.clear()
        _undeletable.update(failures)
        if len(failures) < len(found):
            # Or the room would come back only with the next half minute.
            btrfs.sync(trash)
        return len(os.listdir(trash))


def look_at_trash(root: int) -> tuple[int, list[str]]:
    """How many entries lie in the trash, and (at most 20) which could not be deleted when last tried, and why."""
    with btrfs.directory(layout.TRASH, root) as trash:
        names = os.listdir(trash)
    failures = _undeletable.copy()
    return len(names), [f"{name}: {failures[name]}" for name in sorted(failures.keys() & set(names))[:20]]


def _lift_nested(trash: int, name: str) -> None:
    """Move what is nested in an entry up beside it, to be deleted like it, and so on until nothing is nested.

    Its owner may have nested subvolumes to any depth, so this neither recurses nor holds descriptors.
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
            # Renaming to another directory writes the `..` of the one renamed.
            btrfs.clear_read_only(descriptor)
    except FileNotFoundError:
        return
    with btrfs.directory(layout.TRASH, root) as trash:
        os.rename(name, f"{name}-{time.time_ns()}", src_dir_fd=parent, dst_dir_fd=trash)
