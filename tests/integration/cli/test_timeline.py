"""`nexus sandbox timeline`: whose lives it draws, as of when, and where it writes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.integration.cli.console import Console

BOB = {"NEXUS_USER": "bob"}
ROOT = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}


@pytest.fixture
def story(nexus: Console) -> str:
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out canary-output")
    nexus.ok("sandbox", "pause", "box")
    nexus.ok("sandbox", "stop", "box")
    nexus.ok("sandbox", "create", "bobs", env=BOB)
    return sandbox_id


def test_it_tells_the_states_and_runs_of_the_log(nexus: Console, story: str) -> None:
    events = {event["type"]: event for event in nexus.ok("events", "list", "box", "--json").json["events"]}
    told = nexus.ok("sandbox", "timeline", "box", "--json").json
    (line,) = told["sandboxes"]
    times = [events[f"sandbox.{topic}"]["occurred_at"] for topic in ("requested", "started", "paused", "stopped")]
    assert [(one["state"], one["start"], one["end"]) for one in line["stretches"]] == [
        ("creating", *times[:2]),
        ("active", *times[1:3]),
        ("paused", *times[2:]),
    ]
    assert (told["begin"], told["end"], line["stop_reason"]) == (times[0], times[3], "user")
    assert [run["outcome"] for run in line["runs"]] == ["succeeded"]


def test_everyone_sees_their_own(nexus: Console, story: str) -> None:
    def names(*arguments: str, env: dict[str, str]) -> list[str]:
        told = nexus.ok("sandbox", "timeline", "--json", *arguments, env=env).json
        return [line["name"] for line in told["sandboxes"]]

    assert names(env={}) == ["box"]
    assert names(env=BOB) == ["bobs"]
    assert names(env=ROOT) == []
    assert names("--all-users", env=ROOT) == ["box", "bobs"]
    assert names("--all-users", "--limit", "1", env=ROOT) == ["bobs"]
    assert nexus("sandbox", "timeline", "--all-users").status == 4
    assert nexus("sandbox", "timeline", story, env=BOB).status == 5
    assert nexus.ok("sandbox", "timeline", "-q").text == f"{story}\n"


def test_as_of(nexus: Console, story: str) -> None:
    events = nexus.ok("events", "list", "box", "--json").json["events"]
    paused = next(event for event in events if event["type"] == "sandbox.paused")
    for moment in (str(paused["position"]), paused["recorded_at"]):
        for scope in (["box"], []):
            told = nexus.ok("sandbox", "timeline", *scope, "--as-of", moment, "--json").json
            (line,) = told["sandboxes"]
            assert line["stretches"][-1] == {"state": "paused", "start": paused["occurred_at"], "end": None}
            assert told["end"] == paused["recorded_at"]
    assert nexus("sandbox", "timeline", "box", "--as-of", "0").status == 5
    assert nexus.ok("sandbox", "timeline", "--as-of", "0", "--json").json["sandboxes"] == []


def test_reports_are_files_of_their_own(nexus: Console, story: str, tmp_path: Path) -> None:
    for option, root in (("--svg", "{http://www.w3.org/2000/svg}svg"), ("--html", "html")):
        target = str(tmp_path / f"report{option}")
        assert nexus.ok("sandbox", "timeline", option, target).out == b""
        text = Path(target).read_text(encoding="utf-8")
        assert ET.fromstring(text).tag == root
        assert story in text
        assert "canary-output" not in text
        assert nexus("sandbox", "timeline", option, target).status == 2
        assert nexus("sandbox", "timeline", option, str(tmp_path / "no" / "folder")).status == 2
        assert nexus("sandbox", "timeline", option, "a\0b").status == 2
        assert nexus.ok("sandbox", "timeline", option, "-").text == text
        assert nexus.ok("sandbox", "timeline", option, f"{target}.2", "--json").json == {"file": f"{target}.2"}
    assert nexus("sandbox", "timeline", "--svg", "-", "--html", "-").status == 2


def test_a_terminal_gets_what_fits_it(nexus: Console, story: str) -> None:
    for columns in (50, 130):
        status, seen = nexus.on_terminal("sandbox", "timeline", "box", columns=columns, env={"COLUMNS": None})
        rows = seen.decode().replace("\r", "").splitlines()
        assert status == 0
        assert len(rows[2]) == columns
        assert "━" in rows[2]
    plain = nexus.process("sandbox", "timeline", "box", env={"PYTHONIOENCODING": "ascii", "COLUMNS": "60"})
    assert plain.out.isascii()
    assert b"=" in plain.out
