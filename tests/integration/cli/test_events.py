"""`nexus events`: the log, for those who may see it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nexus.domain.events import BY_TOPIC
from tests.integration.cli.console import PATIENCE, Console, reading

BOB = {"NEXUS_USER": "bob"}


@pytest.fixture
def story(nexus: Console) -> str:
    """A sandbox of ann's with a run, and one of bob's."""
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "create", "bobs", env=BOB)
    nexus.ok("sandbox", "run", "box", "-c", "out canary-output")
    nexus.ok("sandbox", "stop", "box")
    return sandbox_id


def types(told: dict[str, Any]) -> list[str]:
    return [event["type"] for event in told["events"]]


def test_the_events_of_one_sandbox(nexus: Console, story: str) -> None:
    told = nexus.ok("events", "list", "box", "--json").json
    assert types(told) == [
        "sandbox.requested", "sandbox.started", "execution.started", "execution.finished", "sandbox.stop_requested",
        "sandbox.stopped",
    ]  # fmt: skip
    assert {event["sandbox_id"] for event in told["events"]} == {story}
    assert told["next_after"] is None
    positions = [event["position"] for event in told["events"]]
    assert positions == sorted(positions)
    assert "canary" not in str(told)


def test_everything_that_one_may_see(nexus: Console, story: str) -> None:
    mine = nexus.ok("events", "list", "--json").json
    assert {event["sandbox_id"] for event in mine["events"]} == {story}
    assert "name.claimed" in types(mine)
    assert len(types(nexus.ok("events", "list", "--json", env=BOB).json)) == 3
    everything = nexus.ok("events", "list", "--json", env={"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}).json
    assert len(everything["events"]) == len(mine["events"]) + 3 == len(nexus.events())
    other_tenant = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1", "NEXUS_TENANT": "other"}
    assert nexus.ok("events", "list", "--json", env=other_tenant).json["events"] == []


def test_pages_hold_everything_once(nexus: Console, story: str) -> None:
    whole = nexus.ok("events", "list", "--json").json["events"]
    for scope in ([], ["box"]):
        gathered, after = [], 0
        while True:
            page = nexus.ok("events", "list", *scope, "--json", "--limit", "2", "--after", str(after)).json
            gathered += page["events"]
            if page["next_after"] is None:
                break
            assert len(page["events"]) == 2
            after = page["next_after"]
        assert gathered == [event for event in whole if not scope or event["stream"].startswith("sandbox-")]


def test_by_type(nexus: Console, story: str) -> None:
    told = nexus.ok("events", "list", "--json", "--type", "sandbox.stopped", "--type", "execution.started").json
    assert types(told) == ["execution.started", "sandbox.stopped"]
    assert types(nexus.ok("events", "list", "box", "--json", "--type", "sandbox.stopped").json) == ["sandbox.stopped"]
    refused = nexus("events", "list", "--json", "--type", "nosuch")
    assert (refused.status, refused.error["code"]) == (2, "invalid_input")
    assert all(part in refused.error["hint"] for topic in BY_TOPIC for part in topic.split("."))


def test_for_people(nexus: Console, story: str) -> None:
    table = nexus.ok("events", "list", "box").text
    assert "asked for sandbox 'box' on scripted" in table
    assert "user:ann" in table
    assert len(nexus.ok("events", "list", "box", "--quiet").text.split()) == 6
    (line,) = nexus.ok("events", "tail", "-n", "1").text.splitlines()
    assert "sandbox.stopped" in line


def test_show_by_position_and_by_id(nexus: Console, story: str) -> None:
    last = nexus.ok("events", "list", "box", "--json").json["events"][-1]
    assert nexus.ok("events", "show", str(last["position"]), "--json").json == last
    assert nexus.ok("events", "show", last["event_id"], "--json").json == last
    shown = nexus.ok("events", "show", last["event_id"]).text
    assert "sandbox.stopped" in shown
    assert "data.reason:" in shown


@pytest.mark.parametrize("wanted", ["99999", "0", "01a207df-00f0-7790-a16a-ff945a0085ea", "bobs"])
def test_what_is_not_there_or_anothers_is_not_found(nexus: Console, story: str, wanted: str) -> None:
    if wanted == "bobs":
        theirs = nexus.ok("events", "list", "--json", env=BOB).json["events"]
        for event in theirs:
            refused = nexus("events", "show", event["event_id"], "--json")
            assert (refused.status, refused.error["code"]) == (5, "not_found")
            assert nexus("events", "show", str(event["position"])).status == 5
    else:
        assert nexus("events", "show", wanted).status == 5


@pytest.mark.parametrize(
    "wrong",
    [
        ["show"], ["show", "x"], ["show", "-1"], ["show", "٣"], ["show", "9" * 30], ["list", "--after", "-1"],
        ["list", "--limit", "0"], ["list", "--limit", "x"], ["tail", "-n", "-1"], ["tail", "extra"], ["list", "a", "b"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_use(nexus: Console, story: str, wrong: list[str]) -> None:
    assert nexus("events", *wrong).status == 2


def test_an_unknown_sandbox(nexus: Console, story: str) -> None:
    assert nexus("events", "list", "nobody").status == 5
    assert nexus("events", "list", "bobs").status == 5


def test_the_end_of_a_long_log(nexus: Console, story: str) -> None:
    for _ in range(12):
        nexus.ok("sandbox", "create", "box")
        nexus.ok("sandbox", "stop", "box")
    newest = nexus.ok("events", "list", "--json").json["events"][-7:]
    lines = nexus.ok("events", "tail", "-n", "7", "--json").text.splitlines()
    assert [json.loads(line) for line in lines] == newest
    assert nexus.ok("events", "tail", "-n", "0").out == b""
    assert len(nexus.ok("events", "tail", "-n", "9999", "--quiet").text.split()) > 7


@pytest.fixture
def follower(nexus: Console, story: str) -> Iterator[Any]:
    process = nexus.start("events", "tail", "-n", "1", "--follow", "--json")
    yield process
    process.kill()
    process.communicate()


def test_following_sees_what_comes_and_ends_with_130(nexus: Console, follower: Any) -> None:
    lines = reading(follower.stdout)
    assert json.loads(next(lines))["type"] == "sandbox.stopped"
    nexus.ok("sandbox", "create", "theirs", env=BOB)
    made = nexus.create("new")
    assert [json.loads(next(lines))["type"] for _ in range(3)] == [
        "sandbox.requested",
        "name.claimed",
        "sandbox.started",
    ]
    nexus.ok("sandbox", "stop", made)
    assert [json.loads(next(lines))["sandbox_id"] for _ in range(2)] == [made, made]
    follower.send_signal(signal.SIGINT)
    assert follower.wait(PATIENCE) == 130
