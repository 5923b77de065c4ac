"""The helper's report about the machine agrees with the kernel."""

from __future__ import annotations

from draupnir_helper import inventory, wire

MEMINFO = """\
MemTotal:       32825140 kB
MemFree:          901328 kB
MemAvailable:   20417744 kB
Buffers:          540112 kB
Cached:         18022516 kB
SwapTotal:       8388604 kB
SwapFree:        8388604 kB
Active(anon):    7304512 kB
CommitLimit:    24801172 kB
VmallocTotal:   34359738367 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


def test_memory_is_total_and_available_in_bytes() -> None:
    assert inventory.memory_of(MEMINFO) == wire.Memory(total_bytes=33_612_943_360, available_bytes=20_907_769_856)


def test_the_memory_of_this_machine_is_readable() -> None:
    memory = inventory.memory_of(inventory.MEMINFO.read_text(encoding="ascii"))
    assert 0 < memory.available_bytes <= memory.total_bytes
