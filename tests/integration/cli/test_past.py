"""The past through the command line: as-of, replay, why, and the proof that nobody touched it."""

from __future__ import annotations

import os
import pty
import select
import sqlite3
from pathlib import Path

import pytest

from tests.integration.cli.console import PATIENCE, Console

BOB = {"NEXUS_USER": "bob"}


@pytest.fixture
def story(nexus: Console) -> str:
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out canary-output")
    nexus.ok("sandbox", "pause", "box")
    nexus.ok("sandbox", "stop", "box")
    return sandbox_id


def test_status_and_list_as_of(nexus: Console, story: str) -> None:
    events = nexus.ok("events", "list", "box", "--json").json["events"]
    paused = next(event for event in events if event["type"] == "sandbox.paused")
    for moment in (str(paused["position"]), paused["recorded_at"]):
        assert nexus.ok("sandbox", "status", "box", "--as-of", moment, "--json").json["status"] == "paused"
        listed = nexus.ok("sandbox", "list", "--as-of", moment, "--json").json["sandboxes"]
        assert [(sandbox["sandbox_id"], sandbox["status"]) for sandbox in listed] == [(story, "paused")]
    assert nexus.ok("sandbox", "list", "--as-of", str(events[-1]["position"]), "--json").json["sandboxes"] == []
    assert nexus("sandbox", "status", story, "--as-of", "0").status == 5
    assert nexus("sandbox", "status", story, "--as-of", paused["recorded_at"], env=BOB).status == 5


@pytest.mark.parametrize("moment", ["", "yesterday", "2026-11-23", "2026-11-23T10:42:00", "-1", "9" * 40])
def test_a_moment_that_is_none(nexus: Console, story: str, moment: str) -> None:
    for command in (["sandbox", "status", "box"], ["sandbox", "list"], ["replay", "box"], ["audit", "why", "box"]):
        assert nexus(*command, "--as-of", moment).status == 2


def test_as_of_goes_alone(nexus: Console, story: str) -> None:
    assert nexus("sandbox", "status", "box", "--as-of", "1", "--watch").status == 2
    assert nexus("sandbox", "list", "--as-of", "1", "--cursor", "x").status == 2


def test_replay_shows_the_state_after_each_event(nexus: Console, story: str) -> None:
    steps = [nexus.ok("replay", "box", "--json").text.splitlines()]
    assert len(steps[0]) == 8
    text = nexus.ok("replay", "box").text
    assert "asked to pause it\n    v5: active, pause in flight (attempt 2)" in text
    assert nexus("replay", story, env=BOB).status == 5


def test_replay_waits_for_its_reader_at_each_step(nexus: Console, story: str) -> None:
    master, slave = pty.openpty()
    process = nexus.start("replay", "box", "--step", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""

    def until(wanted: bytes) -> None:
        nonlocal seen
        while wanted not in seen:
            assert select.select([master], [], [], PATIENCE)[0], seen
            seen += os.read(master, 65536)

    try:
        for version in range(1, 9):
            until(b"    v%d: " % version)
            assert b"    v%d: " % (version + 1) not in seen
            assert not select.select([master], [], [], 0.05)[0], "it goes on by itself"
            os.write(master, b"\n")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_why(nexus: Console, story: str) -> None:
    told = nexus.ok("audit", "why", "box", "--json").json
    assert "was stopped at" in told["summary"]
    assert "because user:ann from cli@" in told["summary"]
    assert told["positions"] == sorted(told["positions"])
    assert "canary-output" not in nexus.ok("audit", "why", "box").text
    assert nexus("audit", "why", story, env=BOB).status == 5


def test_seal_checkpoint_verify(nexus: Console, story: str, tmp_path: Path) -> None:
    assert nexus("audit", "checkpoint").status == 5
    public = nexus.ok("audit", "key", "make", "--json").json["public_key"]
    assert nexus("audit", "key", "make").status == 6
    kept = str(tmp_path / "kept.json")
    nexus.ok("audit", "checkpoint", "-o", kept)
    assert nexus("audit", "checkpoint", "-o", kept).status == 2
    verdict = nexus.ok("audit", "verify", "--checkpoint", kept, "--key", public, "--json").json
    assert (verdict["intact"], verdict["unsealed"], verdict["checkpoints"]) == (True, 0, 1)
    (tmp_path / "dump").write_bytes(nexus.ok("audit", "dump").out)
    nexus.ok("audit", "verify", "--offline", str(tmp_path / "dump"), "--checkpoint", kept)
    database = sqlite3.connect(nexus.data / "nexus.db")
    database.execute("DROP TRIGGER events_are_not_updated")
    database.execute("UPDATE events SET actor = 'user:eve' WHERE position = 4")
    database.commit()
    database.close()
    touched = nexus("audit", "verify", "--json")
    assert touched.status == 7
    assert [(finding["kind"], finding["position"]) for finding in touched.json["findings"]] == [("edited", 4)]
    assert "edited at 4" in nexus("audit", "verify").text


def test_an_empty_installation_is_intact(nexus: Console) -> None:
    assert nexus.ok("audit", "verify", "--json").json["events"] == 0


@pytest.mark.parametrize("content", ["", "{}", "[]", "\x00", '{"format": "nexus-audit-checkpoint/1"}', "[" * 10_000])
def test_what_is_no_checkpoint(nexus: Console, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    assert nexus("audit", "verify", "--checkpoint", str(file)).status == 2
    assert nexus("audit", "verify", "--offline", str(file)).status == 2
    assert nexus("audit", "verify", "--key", "nonsense").status == 2
    assert nexus("audit", "verify", "--checkpoint", str(tmp_path)).status == 2
