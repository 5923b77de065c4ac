"""A thousand sleeping instances on one machine: each wakes for a connection, and leaves nothing behind."""

from __future__ import annotations

import concurrent.futures
import faulthandler
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg

from tests.system.faults import await_that
from tests.system.service import URL, Service, credentials, run
from tests.system.world import processes

COUNT = 1000
ONE_BY_ONE = 25
AT_ONCE = 50

JSON = dict[str, Any]


def test_a_thousand_instances_sleep_and_each_answers(service: Service, image: int) -> None:
    # It takes minutes, which is not a hang.
    faulthandler.cancel_dump_traceback_later()
    headers = {"Authorization": f"Bearer {service.token}"}
    with httpx.Client(base_url=URL, headers=headers, timeout=900) as client, thousand(client, image) as sleepers:
        woken = random.sample(sleepers, ONE_BY_ONE + AT_ONCE)
        each(mark, woken, 4)
        await_that(lambda: set(statuses(client).values()) == {"asleep"}, "all of them sleep", within_s=900)
        assert statuses(client).keys() == {instance["id"] for instance in sleepers}
        assert not processes(), "one that sleeps has no process"

        for instance in woken[:ONE_BY_ONE]:
            assert marked(instance) == (instance["id"], 5000)

        for unit in ("instance", "port"):
            name = f"draupnir-{unit}-{woken[0]['id']}.service"
            assert run("systemctl", "show", "-P", "Slice", name).stdout == "draupnir-instances.slice\n"
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = [threads.submit(marked, instance) for instance in woken[ONE_BY_ONE:]]
            # Waking them uses the whole processor, but the service still answers others.
            while concurrent.futures.wait(answers, timeout=0.5).not_done:
                assert client.get("/health_check", timeout=120).status_code == 200
        assert [answer.result() for answer in answers] == [(one["id"], 5000) for one in woken[ONE_BY_ONE:]]
        await_that(lambda: set(statuses(client).values()) == {"asleep"}, "they sleep again", within_s=900)


@contextmanager
def thousand(client: httpx.Client, image_id: int) -> Iterator[list[JSON]]:
    """Provide created instances with an idle timeout of a second; destroy them at the end."""

    def create(_: int) -> JSON:
        answer = client.post("/instances", json={"data": {"attributes": {"image_id": image_id, "sleep_after": 1}}})
        assert answer.status_code == 201, answer.text
        instance: JSON = answer.json()["data"]
        return instance

    def destroy(instance_id: int) -> None:
        assert client.delete(f"/instances/{instance_id}").status_code == 204

    try:
        yield each(create, range(COUNT), 4)
    finally:
        each(destroy, statuses(client), 8)


def each(do: Callable[[Any], Any], items: Iterable[Any], at_once: int) -> list[Any]:
    """Map the items, several at a time."""
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(do, items))


def statuses(client: httpx.Client) -> dict[int, str]:
    """Return id → status of all instances."""
    listed = client.get("/instances").json()["data"]
    return {instance["id"]: instance["attributes"]["status"] for instance in listed}


def mark(instance: JSON) -> None:
    """Write its id into the instance."""
    with credentials(instance) as connection_string, psycopg.connect(connection_string) as connection:
        connection.execute(f"CREATE TABLE mark AS SELECT {int(instance['id'])} AS id".encode())


def marked(instance: JSON) -> tuple[int, int]:
    """Read the id from the instance, and its number of users."""
    with credentials(instance) as connection_string, psycopg.connect(connection_string) as connection:
        row = connection.execute("SELECT id, (SELECT count(*) FROM users) FROM mark").fetchone()
    assert row is not None
    return row[0], row[1]
