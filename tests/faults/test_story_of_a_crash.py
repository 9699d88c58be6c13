"""The story of a sandbox whose callers were killed by kill -9, as `nexus audit why` tells it: all of it is true."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nexus.projections.narrative import at
from tests.integration.cli.console import PATIENCE, Console
from tests.support import postgres

Entry = dict[str, Any]

HOST = os.uname().nodename
HERE = f"cli@{HOST}:{os.getpid()}"
OPERATOR = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}


@pytest.fixture(params=["sqlite", "postgres"])
def nexus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    console = Console(tmp_path)
    if request.param == "sqlite":
        yield console
        return
    with postgres.database(prepared=True) as database:
        console.env["NEXUS_DATABASE_URL"] = database.application
        yield console


def killed(nexus: Console, call: str, *arguments: str) -> str:
    """Kill -9 a command while the provider is at it; returns the origin of what it recorded."""
    before = len(nexus.provider.cloud.calls(call))
    nexus.provider.cloud.slow(call, 600, times=1)
    process = nexus.start("sandbox", *arguments)
    deadline = time.monotonic() + PATIENCE
    while len(nexus.provider.cloud.calls(call)) == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the provider was never asked"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return f"cli@{HOST}:{process.pid}"


def healed(nexus: Console) -> str:
    """One round of a worker, a process of its own; returns its origin."""
    process = nexus.start("worker", "--once", env=OPERATOR)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)
    return f"worker@{HOST}:{process.pid}"


def log(nexus: Console) -> list[Entry]:
    found: list[Entry] = nexus.ok("audit", "log", "box", "--json").json["entries"]
    return found


def when(entry: Entry) -> str:
    return f"{at(datetime.fromisoformat(entry['occurred_at']))} (#{entry['position']})"


def only(entries: list[Entry], kind: str, *, command: str | None = None) -> Entry:
    (found,) = (one for one in entries if one["type"] == kind and command in (None, one["command"]))
    return found


def test_a_pause_and_a_stop_that_others_had_to_carry_on(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out canary")
    pausing = killed(nexus, "pause", "pause", "box")
    first_worker = healed(nexus)

    entries = log(nexus)
    asked, taken, paused = (
        only(entries, f"sandbox.{kind}") for kind in ("pause_requested", "operation_taken_over", "paused")
    )
    assert len({one["correlation_id"] for one in (asked, taken, paused)}) == 1, "one story"
    assert (taken["causation_id"], paused["causation_id"]) == (asked["event_id"], taken["event_id"])
    assert [(one["actor"], one["origin"]) for one in (asked, taken, paused)] == [
        ("user:ann", pausing),
        ("system:recovery", first_worker),
        ("system:recovery", first_worker),
    ]
    pause_told = (
        f"The pause that user:ann had asked for from {pausing} at {when(asked)} was left unfinished; "
        f"system:recovery from {first_worker} took it over at {when(taken)}, because the process that carried it out "
        f"was gone; what came of it: {paused['sentence']} (#{paused['position']})."
    )
    started, ended = only(entries, "execution.started"), only(entries, "execution.finished")
    told = nexus.ok("audit", "why", "box", "--json").json
    assert told["sentences"] == [
        f"Sandbox 'box' ({sandbox_id}) is paused since {when(paused)}, because user:ann from {pausing} asked for it at "
        f"{when(asked)}; {paused['sentence'].removeprefix('it is paused; ')}.",
        pause_told,
        f"Last run: user:ann from {HERE} started it at {when(started)}; {ended['sentence']}, as user:ann from {HERE} "
        f"recorded at {when(ended)}.",
    ]
    nexus.ok("sandbox", "resume", "box")
    running = killed(nexus, "run", "run", "box", "-c", "out canary")
    stopping = killed(nexus, "destroy", "stop", "box")
    second_worker = healed(nexus)

    entries = log(nexus)
    started, lost = [one for one in entries if one["type"] == "execution.started"][-1], only(entries, "execution.lost")
    asked, stopped = only(entries, "sandbox.stop_requested"), only(entries, "sandbox.stopped")
    taken = [one for one in entries if one["type"] == "sandbox.operation_taken_over"][-1]
    assert (lost["correlation_id"], lost["causation_id"]) == (started["correlation_id"], started["event_id"])
    told = nexus.ok("audit", "why", sandbox_id, "--json").json
    assert told["sentences"] == [
        f"Sandbox 'box' ({sandbox_id}) was stopped at {when(stopped)}, because user:ann from {stopping} asked for it "
        f"at {when(asked)}.",
        pause_told,
        f"The stop that user:ann had asked for from {stopping} at {when(asked)} was left unfinished; system:recovery "
        f"from {second_worker} took it over at {when(taken)}, because the process that carried it out was gone; what "
        f"came of it: it is stopped (#{stopped['position']}).",
        # Whoever came next settled what was due: the process that was to stop it.
        f"Last run: user:ann from {running} started it at {when(started)}; run {started['data']['execution_id']} has "
        f"no known outcome: the process that ran it is gone, as system:recovery from {stopping} recorded at "
        f"{when(lost)}.",
    ]
    the_chain_is_in_the_log(told, entries)
    text = nexus.ok("audit", "why", sandbox_id).text
    assert text.splitlines() == [*told["sentences"], *(f"  {line}" for line in told["chain"])]
    assert "canary" not in text


def the_chain_is_in_the_log(told: dict[str, Any], entries: list[Entry]) -> None:
    """Positions, times, actors, origins and causes of the lines are those of the entries, and none has no cause."""
    by_position = {one["position"]: one for one in entries}
    by_id = {one["event_id"]: one for one in entries}
    assert told["positions"] == sorted(told["positions"])
    assert len(told["chain"]) == len(told["positions"]) >= 8
    for position, line in zip(told["positions"], told["chain"], strict=True):
        entry = by_position[position]
        moment = at(datetime.fromisoformat(entry["occurred_at"]))
        assert line.startswith(f"#{position} {moment} {entry['actor']} from {entry['origin']}: ")
        cause = re.search(r" \(led to by #(\d+)\)$", line)
        assert (cause is None) == (entry["causation_id"] is None)
        if cause is not None:
            assert by_id[entry["causation_id"]]["position"] == int(cause[1])
