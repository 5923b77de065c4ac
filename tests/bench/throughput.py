"""pgbench through the port and with `network: direct`, compared with a bare Postgres on the same disk; no bound."""

from __future__ import annotations

from functools import partial

from tests.bench import floor, helper
from tests.bench.creation import Maker
from tests.bench.figures import Figure, in_turn
from tests.system.service import Service, credentials, run

CLIENTS = 8
SECONDS = 3
BARE = "bare postgres, unix socket"
LOADS = {"pgbench -S": ["-S"], "pgbench TPC-B": []}


def measure(service: Service, image_id: int, times: int) -> list[Figure]:
    """Measure ours with TCP and TLS, which are mandatory, and the bare one with a unix socket."""
    maker = Maker(service, image_id)
    proxied = helper.create(maker.client, image_id, sleep_after=0)
    direct = helper.create(maker.client, image_id, network="direct")
    target = floor.DATA / "floor-pgbench"
    floor.snapshot(floor.image(image_id), target)
    figures = []
    with credentials(proxied) as one, credentials(direct) as two, floor.server(target) as three:
        for connection_string in (one, two, three):
            floor.first_answer(connection_string)
        for name, options in LOADS.items():
            series = in_turn(times, *(partial(_pgbench, place, options) for place in (one, two, three)))
            figures += [
                Figure(f"{name}, {CLIENTS} clients, through the port", "tps", series[0], series[2], BARE),
                Figure(f"{name}, {CLIENTS} clients, direct", "tps", series[1], series[2], BARE),
            ]
    floor.forget(target)
    helper.destroy_all(maker.client, [proxied, direct])
    return figures


def _pgbench(connection_string: str, options: list[str]) -> float:
    load = ["-n", "-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS), *options]
    done = run("pgbench", *load, connection_string)
    return float(next(line for line in done.stdout.splitlines() if line.startswith("tps = ")).split()[2])
