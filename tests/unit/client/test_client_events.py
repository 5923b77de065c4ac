"""`draupnir-client events` shows what happened, and follows it."""

from __future__ import annotations

import json

import pytest

from .conftest import Clock, FakeServer, Run, event, instance


def test_events_are_a_table_with_who_and_why(server: FakeServer, run: Run) -> None:
    server.events = [event(7), event(8, "closed", caller="draupnir", reason="owner_left:jane@corp.example")]
    lines = run("events").stdout.splitlines()
    assert lines[0].split() == ["ID", "HAPPENED", "AT", "WHAT", "EVENT", "OWNER", "BY", "REASON"]
    assert lines[1].split() == ["7", "2017-05-01T16:00:00Z", "instance", "4", "started", "upload", "upload", "-"]
    assert lines[2].split()[-2:] == ["draupnir", "owner_left:jane@corp.example"]
    assert [each["id"] for each in json.loads(run("events", "--output", "json").stdout)] == ["7", "8"]


def test_an_empty_list_of_events_is_reported_on_stderr(server: FakeServer, run: Run) -> None:
    found = run("events")
    assert (found.stdout, found.exit_code) == ("", 0)
    assert "No events found" in found.stderr


def test_after_and_all_select_events(server: FakeServer, run: Run) -> None:
    server.events = [event(7), event(8)]
    assert run("events", "--after", "7", "--all").stdout.splitlines()[1].startswith("8 ")
    assert server.asked[-1] == "GET /events?after=7&all=true"


def test_following_continues_where_it_was(server: FakeServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    server.events = [event(7), event(8)]
    pauses = 0

    def pause(_clock: Clock, _seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 2:
            raise KeyboardInterrupt
        server.events.append(event(9, "destroyed"))

    monkeypatch.setattr(Clock, "pause", pause)
    found = run("events", "--follow")
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["7", "8", "9"]
    assert server.asked[-1] == "GET /events?after=9"


def test_an_instance_is_shown_with_its_last_events(server: FakeServer, run: Run) -> None:
    server.instances = {4: instance(4, events=[event(7), event(8, "stopped", caller="draupnir", reason="disk_full")])}
    shown = run("instances", "show", "4").stdout
    assert "2017-05-01T16:00:00Z started by upload\n" in shown
    assert "2017-05-01T16:00:00Z stopped by draupnir (disk_full)\n" in shown
