"""Ceilings: quota groups of writable subvolumes, their limits and usage; btrfs(5), simple quotas.

Creating a subvolume in an existing group needs no capability. Creating or limiting a group needs CAP_SYS_ADMIN, so the
quota unit does that, which takes as long as the rest of a creation. So the groups of the next instances are created
ahead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from draupnir_helper import btrfs, bus, files, layout, subvolumes, units
from draupnir_helper.errors import HelperError
from draupnir_helper.layout import Place
from draupnir_helper.wire import MAX_ID

AHEAD = 16

_SYSFS = Path("/sys/fs/btrfs")
# Refill early, because several instances may be requested at once.
_REFILL_AT = AHEAD // 2
_NO_LIMIT = 2**62
_NEARLY_BYTES = 64 * 1024 * 1024

# One file for the quota unit has at most this many orders.
_AT_ONCE = 500

log = logging.getLogger(__name__)

# The lock serialises runs of the unit. The groups are kept although they are empty. A restart forgets them.
_unit = threading.Lock()
_kept: set[int] = set()

Order = tuple[int, int] | tuple[int, int, int]  # group, limit (0 removes the group), and a subvolume to assign


class Quotas:
    """The quota groups of the data filesystem."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._directory = _SYSFS / btrfs.filesystem_id(root) / "qgroups"

    @property
    def simple(self) -> bool:
        """Return whether the filesystem has simple quotas, which ceilings need."""
        return self._read("mode") == "squota"

    def limit_bytes(self, group: int) -> int | None:
        """Return the limit of the group, or None if the group does not exist."""
        return self._number(f"{_name(group)}/max_referenced")

    def written_bytes(self, group: int) -> int | None:
        """Return the bytes that the group occupies, including data that is not yet on the disk."""
        referenced = self._number(f"{_name(group)}/referenced")
        reserved = self._number(f"{_name(group)}/rsv_data")
        return None if referenced is None or reserved is None else referenced + reserved

    def written(self, place: Place) -> Iterator[tuple[int, int]]:
        """Yield each id of the place that has a group, and its written bytes."""
        for group in self._groups(level=1):
            owner = layout.quota_group_owner(group)
            if owner is not None and owner[0] is place and (size_bytes := self.written_bytes(group)) is not None:
                yield owner[1], size_bytes

    def ensure(self, place: Place, some_id: int, limit_bytes: int) -> int | None:
        """Create or update the group of this id, and return it. Return None without simple quotas."""
        group = layout.quota_group(place, some_id)
        if group is None or not self.simple:
            return None
        if self.limit_bytes(group) != limit_bytes:
            with _unit:
                # A subvolume that is older than its group has to be assigned.
                found = subvolumes.find(self._root, place, some_id)
                _carry_out([(group, limit_bytes) if found is None else (group, limit_bytes, found.id)])
        return group

    def limit_all(self, place: Place, limits: Mapping[int, int]) -> None:
        """Change the limits of the existing groups of these ids."""
        with _unit:
            orders = []
            for some_id, limit_bytes in limits.items():
                group = layout.quota_group(place, some_id)
                if group is not None and self.limit_bytes(group) not in {None, limit_bytes}:
                    orders.append((group, limit_bytes))
            _carry_out(orders)

    @contextmanager
    def made(self, place: Place, some_id: int, limit_bytes: int) -> Iterator[int | None]:
        """Do the same as `ensure`, and keep the group during the block, which creates its subvolume."""
        group = layout.quota_group(place, some_id)
        assert group is not None
        _kept.add(group)
        try:
            yield self.ensure(place, some_id, limit_bytes)
        finally:
            _kept.discard(group)

    def make_ahead(self, place: Place, some_id: int, limit_bytes: int) -> None:
        """Create the groups of this id and of the next ones, in the background if this one exists."""
        group, last = layout.quota_group(place, some_id), layout.quota_group(place, MAX_ID)
        assert group is not None
        assert last is not None
        if not self.simple:
            return
        # After the last id the groups of the next place begin.
        refilled = range(group, last + 1)[_REFILL_AT:][:AHEAD]
        if self.limit_bytes(group) is None:
            self._make_ahead(range(group, last + 1)[:AHEAD], limit_bytes)
        elif refilled and self.limit_bytes(refilled[0]) is None:
            threading.Thread(target=self._refill, args=(refilled, limit_bytes), daemon=True).start()

    def idle(self) -> list[int]:
        """Return the groups of deleted subvolumes. Those of level 0, which btrfs leaves behind, come first."""
        stale = [group for group in self._groups(level=0) if self._number(f"{_name(group)}/referenced") == 0]
        gone = [
            group
            for group in self._groups(level=1)
            if group not in _kept
            and self.written_bytes(group) == 0
            and (owner := layout.quota_group_owner(group)) is not None
            and not subvolumes.exists(self._root, *owner)
        ]
        return stale + gone

    def sweep(self) -> None:
        """Remove the groups of deleted subvolumes. The kernel refuses to remove groups that are in use."""
        with _unit:
            _carry_out([(group, 0) for group in self.idle()])

    def let_go(self) -> None:
        """Remove the limits of full groups in the trash, because deleting nested subvolumes first writes data."""
        full = [
            group
            for group in self._groups(level=1)
            if (limit_bytes := self.limit_bytes(group)) is not None
            and (self.written_bytes(group) or 0) + _NEARLY_BYTES > limit_bytes
            and (owner := layout.quota_group_owner(group)) is not None
            and not subvolumes.exists(self._root, *owner)
        ]
        with _unit:
            _carry_out([(group, _NO_LIMIT) for group in full])

    def _make_ahead(self, wanted: range, limit_bytes: int) -> None:
        with _unit:
            groups = [group for group in wanted if self.limit_bytes(group) is None]
            _kept.update(groups)
            _carry_out([(group, limit_bytes) for group in groups])

    def _refill(self, wanted: range, limit_bytes: int) -> None:
        try:
            with bus.session():
                self._make_ahead(wanted, limit_bytes)
        except (HelperError, OSError) as error:
            log.warning("quota groups were not made ahead: %s", error)

    def _groups(self, level: int) -> Iterator[int]:
        # Without simple quotas the directory is missing, or has the groups of classic quotas.
        if not self.simple:
            return
        for entry in self._directory.iterdir():
            found_level, _, number = entry.name.partition("_")
            if found_level == str(level) and number.isdecimal():
                yield level << 48 | int(number)

    def _read(self, name: str) -> str | None:
        try:
            return (self._directory / name).read_text(encoding="ascii").strip()
        except OSError:  # a removed group can no longer be read
            return None

    def _number(self, name: str) -> int | None:
        text = self._read(name)
        return int(text) if text is not None and text.isdecimal() else None


def _name(group: int) -> str:
    return f"{group >> 48}_{group & (1 << 48) - 1}"


def _carry_out(orders: Sequence[Order]) -> None:
    """Run the quota unit with these orders. Raises UNIT_FAILED, BUSY."""
    for start in range(0, len(orders), _AT_ONCE):
        some = orders[start : start + _AT_ONCE]
        number = some[0][0]
        path = layout.quota_file(number)
        files.write(path, "".join(" ".join(map(str, order)) + "\n" for order in some), mode=0o600)
        try:
            units.run(layout.quota_unit(number))
        finally:
            path.unlink(missing_ok=True)
