"""`nexus audit log` and `nexus audit export`: who did what, as far as one may see it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.console import PATIENCE, Console, reading

BOB = {"NEXUS_USER": "bob"}
AGENT = {"NEXUS_AGENT": "bot"}
ROOT = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}


@pytest.fixture
def story(nexus: Console) -> str:
    """A sandbox of ann's, with a run by her agent; then one of bob's."""
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out canary-output", env=AGENT)
    nexus.ok("sandbox", "stop", "box")
    nexus.ok("sandbox", "create", "bobs", env=BOB)
    return sandbox_id


def log(nexus: Console, *arguments: str, **more: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = nexus.ok("audit", "log", "--json", *arguments, **more).json["entries"]
    return entries


def test_everyone_reads_their_own(nexus: Console, story: str) -> None:
    mine, theirs, everything = log(nexus), log(nexus, env=BOB), log(nexus, env=ROOT)
    assert {entry["sandbox_id"] for entry in mine} == {story}
    assert story not in {entry["sandbox_id"] for entry in theirs}
    assert len(everything) == len(mine) + len(theirs) == len(nexus.events())
    for command in (["log"], ["log", "--follow"], ["export"]):
        assert nexus("audit", *command, story, env=BOB).status == 5
        assert nexus("audit", *command, "nosuch").status == 5
    assert nexus.ok("audit", "export", env={**ROOT, "NEXUS_TENANT": "other"}).out == b""
    assert b"canary-output" not in nexus.ok("audit", "export").out


def test_an_entry_says_who_what_when_and_caused_by_what(nexus: Console, story: str) -> None:
    events = nexus.ok("events", "list", "box", "--json").json["events"]
    started, finished = (
        entry for entry in log(nexus, "box") if entry["type"] in ("execution.started", "execution.finished")
    )
    assert (started["actor"], started["agent_id"], started["tenant_id"]) == ("agent:bot", "bot", "default")
    assert finished["causation_id"] == started["event_id"]
    assert finished["correlation_id"] == started["correlation_id"]
    assert "ended with exit code 0" in finished["sentence"]
    stored = next(event for event in events if event["event_id"] == finished["event_id"])
    assert {name: stored[name] for name in stored if name in finished} == {
        name: finished[name] for name in finished if name in stored
    }
    text = nexus.ok("audit", "log", "box").text
    assert f"correlation {started['correlation_id']}, caused by {started['event_id']}" in text
    origin = f"cli@{os.uname().nodename}:{os.getpid()}"
    assert started["origin"] == finished["origin"] == origin
    assert f"execution.started by run on {story}, tenant default, agent bot, from {origin}" in text
    assert nexus.ok("audit", "log", "-q", "box").text.split() == [event["event_id"] for event in events]


def test_filters(nexus: Console, story: str) -> None:
    everything = log(nexus)
    run = [entry for entry in everything if entry["agent_id"] == "bot"]
    assert len(run) == 2
    correlation = run[0]["correlation_id"]
    assert log(nexus, "--agent", "bot") == log(nexus, "--actor", "agent:bot") == run
    assert log(nexus, "--correlation", correlation) == log(nexus, "--command", "run") == run
    assert log(nexus, "--type", "execution.started") == run[:1]
    assert log(nexus, "--type", "execution.started", "--actor", "user:ann") == []
    for scope in ([], [story]):
        whole = log(nexus, *scope)
        moment = run[1]["recorded_at"]
        before, since = log(nexus, *scope, "--until", moment), log(nexus, *scope, "--since", moment)
        assert before + since == whole
        assert since[0] == run[1]
        assert log(nexus, *scope, "--after", str(run[0]["position"])) == since
    exported = nexus.ok("audit", "export", "--agent", "bot").text.splitlines()
    assert [json.loads(line) for line in exported] == run


def test_a_worker_is_another_origin(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    nexus.provider.cloud.vanish(sandbox_id)
    nexus.ok("worker", "--once")
    by_worker = log(nexus, "--origin", "worker")
    assert [entry["type"] for entry in by_worker] == ["sandbox.lost"]
    here = f"{os.uname().nodename}:{os.getpid()}"
    assert by_worker[0]["origin"] == f"worker@{here}"
    assert log(nexus, "--origin", f"worker@{here}") == by_worker
    everything = log(nexus)
    assert log(nexus, "--origin", "cli") + by_worker == everything == log(nexus, "--origin", f"@{here}")
    assert log(nexus, "--origin", "nowhere") == []
    columns = nexus.ok("audit", "export", "--format", "csv", "--origin", "worker").text.splitlines()
    assert f",worker@{here}," in columns[1]


def test_refused_commands(nexus: Console, story: str) -> None:
    head = nexus.head()
    refusals = [
        (["pause", "box"], {}, 6),
        (["stop", story], BOB, 5),
        (["run", "nosuch", "-c", "1"], BOB, 5),
    ]
    for arguments, env, status in refusals:
        assert nexus("sandbox", *arguments, env=env).status == status
    mine, theirs, everything = (log(nexus, "--refused", env=env) for env in ({}, BOB, ROOT))
    assert [entry["command"] for entry in mine] == ["pause"]
    assert [entry["command"] for entry in theirs] == ["stop", "run"]
    assert [entry["position"] for entry in everything] == [event.position for event in nexus.events(head)]
    assert [(entry["sandbox_id"], entry["data"]["owner_id"]) for entry in theirs] == [(None, None)] * 2
    assert (everything[1]["sandbox_id"], everything[1]["data"]["owner_id"]) == (story, "ann")
    assert "ann" not in nexus.ok("audit", "export", "--refused", "--format", "csv", env=BOB).text
    assert mine[0]["data"]["state"] == "stopped"
    assert mine[0]["sentence"].startswith("was refused to pause 'box': Cannot pause a sandbox that is stopped")
    assert log(nexus, "box", "--refused") == mine == log(nexus, "box")[-1:]
    assert log(nexus, story, "--refused", env=ROOT) == everything[:2]
    assert log(nexus, "--type", "command.refused", "--actor", "user:bob", env=ROOT) == theirs[:0] + everything[1:]
    assert log(nexus, "--refused", "--command", "stop", env=ROOT) == everything[1:2]
    exported = nexus.ok("audit", "export", "--refused", "--format", "cloudevents", env=ROOT).text.splitlines()
    assert [json.loads(line)["type"] for line in exported] == ["nexus.command.refused"] * 3
    assert [json.loads(line)["subject"] for line in exported][:2] == [story, story]
    assert nexus.ok("events", "list", "box", "--json").json["events"][-1]["type"] == "sandbox.stopped"
    shown = nexus.ok("events", "list", "--type", "command.refused", env=BOB).text
    assert "was refused to stop" in shown
    assert "ann" not in shown
    event = nexus.ok("events", "show", str(theirs[0]["position"]), "--json", env=BOB).json
    assert (event["sandbox_id"], event["data"]["owner_id"]) == (None, None)
    assert nexus("audit", "log", "--refused", "--type", "sandbox.paused").status == 2
    nexus.ok("audit", "seal")
    verdict = nexus.ok("audit", "verify", "--json").json
    assert (verdict["intact"], verdict["sealed_upto"]) == (True, everything[-1]["position"])


def test_a_tenant_is_a_filter_for_those_who_see_several(nexus: Console, story: str) -> None:
    nexus.ok("sandbox", "create", "theirs", env={"NEXUS_TENANT": "other"})
    assert log(nexus, "--tenant", "default") == log(nexus)
    assert log(nexus, "--tenant", "other", env=ROOT) == []
    assert log(nexus, "--tenant", "other", env={"NEXUS_TENANT": "other"}) != []


def test_pages_hold_everything_once(nexus: Console, story: str) -> None:
    for scope in ([], ["box"]):
        gathered: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = nexus.ok("audit", "log", *scope, "--json", "--limit", "2", "--after", str(after)).json
            assert len(page["entries"]) <= 2
            gathered += page["entries"]
            after = page["next_after"]
        assert gathered == log(nexus, *scope)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--until", "2026-11-23T10:42:00"],
        ["--since", "0001-01-01T00:00:00+01:00"],
        ["--until", "9999-12-31T23:59:59-01:00"],
        ["--since", "2026-11-23T10:42:00Z", "--until", "2026-11-23T10:41:59Z"],
        ["--type", "sandbox.nosuch"],
        ["--after", "-1"],
        ["--limit", "0"],
        ["--format", "xml"],
        ["--follow", "--until", "2026-11-23T10:42:00Z"],
    ],
)
def test_what_cannot_be_asked(nexus: Console, arguments: list[str]) -> None:
    assert nexus("audit", "log", *arguments).status == 2
    assert nexus("audit", "export", *arguments).status == 2


def test_export(nexus: Console, story: str) -> None:
    entries = log(nexus, env=ROOT)
    lines = nexus.ok("audit", "export", env=ROOT).text.splitlines()
    assert [json.loads(line) for line in lines] == entries
    text = nexus.ok("audit", "export", "--format", "csv", env=ROOT).text
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["event_id"] for row in rows] == [entry["event_id"] for entry in entries]
    events = [
        json.loads(line)
        for line in nexus.ok("audit", "export", "--format", "cloudevents", env=ROOT).out.split(b"\n")
        if line
    ]
    assert [(event["id"], event["data"]) for event in events] == [
        (entry["event_id"], entry["data"]) for entry in entries
    ]
    assert len({event["source"] for event in events}) == 1


def test_a_hostile_agent_reaches_no_spreadsheet_and_no_terminal(nexus: Console) -> None:
    nexus.create("box")
    nexus.ok("sandbox", "stop", "box", env={"NEXUS_AGENT": "=cmd|' /C calc'!A0"})
    rows = list(csv.DictReader(io.StringIO(nexus.ok("audit", "export", "--format", "csv").text, newline="")))
    assert rows[-1]["agent_id"] == "'=cmd|' /C calc'!A0"
    status, seen = nexus.on_terminal("audit", "export", "--format", "csv")
    assert status == 0
    assert all(line.endswith(b"\r") and b"\r" not in line[:-1] for line in seen.split(b"\n")[:-1])


def test_export_is_utf_8_in_every_locale(nexus: Console) -> None:
    nexus.create("box")
    agent = "ag\u00e9nt-\u65e5"
    nexus.ok("sandbox", "stop", "box", env={"NEXUS_AGENT": agent})
    done = nexus.process("audit", "export", "--format", "csv", env={"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"})
    assert done.status == 0
    assert f",{agent}," in done.text


@pytest.fixture
def follower(nexus: Console, story: str) -> Iterator[Any]:
    process = nexus.start(
        "audit", "log", "--follow", "--json", "--type", "sandbox.started", "--type", "command.refused"
    )
    yield process
    process.kill()
    process.communicate()


def test_following_sees_what_comes_and_ends_with_130(nexus: Console, follower: Any) -> None:
    lines = reading(follower.stdout)
    next(lines)
    nexus.ok("sandbox", "create", "theirs", env=BOB)
    made = nexus.create("new")
    assert json.loads(next(lines))["sandbox_id"] == made
    assert nexus("sandbox", "resume", "box").status == 6
    assert json.loads(next(lines))["type"] == "command.refused"
    follower.send_signal(signal.SIGINT)
    assert follower.wait(PATIENCE) == 130


def test_following_ends_by_itself_at_its_limit(nexus: Console, story: str) -> None:
    lines = nexus.ok("audit", "log", "box", "--follow", "--json", "--limit", "3").text.splitlines()
    assert [json.loads(line) for line in lines] == log(nexus, "box", "--limit", "3")
