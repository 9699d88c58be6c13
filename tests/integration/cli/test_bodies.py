"""`nexus audit body` and `erase`: what is kept, for whom, and how it goes."""

from __future__ import annotations

import base64
import os

import pytest

from tests.integration.cli.console import Console

BOB = {"NEXUS_USER": "bob"}
ROOT = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}
CODE = "out hello\nerr \x1b[31mred\nexit 3"


@pytest.fixture
def execution(nexus: Console) -> str:
    """A run in a sandbox that captures."""
    nexus.create("box", "--capture")
    execution_id: str = nexus("sandbox", "run", "box", "-c", CODE, "--json").json["execution_id"]
    return execution_id


def test_what_ran_is_shown(nexus: Console, execution: str) -> None:
    assert nexus.ok("sandbox", "logs", "box", "-q").text.split() == [execution]
    told = nexus.ok("audit", "body", execution, "--json").json
    assert list(told) == ["execution_id", "sandbox_id", "language", "truncated", "intact", "parts"]
    assert [tuple(part) for part in told["parts"]] == [
        ("kind", "state", "detail", "bytes", "sha256", "kept_at", "text")
    ] * 3
    assert [(part["kind"], part["state"], part["text"]) for part in told["parts"]] == [
        ("code", "verified", CODE),
        ("stdout", "verified", "hello\n"),
        ("stderr", "verified", "\x1b[31mred\n"),
    ]
    text = nexus.ok("audit", "body", execution).text
    assert f"code: {len(CODE)} bytes, verified" in text
    assert "    hello\n" in text
    assert "\x1b" not in text
    assert nexus.ok("audit", "body", execution, "--part", "stderr").out == b"\x1b[31mred\n"
    status, seen = nexus.on_terminal("audit", "body", execution, "--part", "stderr")
    assert (status, b"\\x1b[31mred" in seen) == (0, True)


def test_it_is_off_by_default_and_the_settings_turn_it_on(nexus: Console) -> None:
    nexus.create("plain")
    run = nexus.ok("sandbox", "run", "plain", "-c", "out x", "--json").json
    assert run["notes"] == []
    told = nexus.ok("audit", "body", run["execution_id"]).text
    assert "code: missing: its sandbox does not capture" in told
    result = nexus("audit", "body", run["execution_id"], "--part", "code")
    assert (result.status, result.out) == (5, b"")
    env = {"NEXUS_CAPTURE": "1"}
    for name, option, captures in (("on", [], True), ("off", ["--no-capture"], False)):
        nexus.ok("sandbox", "create", name, *option, env=env)
        assert nexus.ok("sandbox", "status", name, "--json").json["capture"] is captures


def test_strangers_are_told_what_an_unknown_one_answers(nexus: Console, execution: str) -> None:
    sandbox_id = nexus.ok("sandbox", "status", "box", "--json").json["sandbox_id"]
    nobodys = "0" * 32
    for mine, other, command in (
        (execution, f"ex_{nobodys}", ["audit", "body"]),
        (sandbox_id, f"sb_{nobodys}", ["audit", "erase"]),
    ):
        theirs, unknown = (nexus(*command, given, "--json", env=BOB) for given in (mine, other))
        assert theirs.status == unknown.status == 5
        assert theirs.err.replace(mine, other) == unknown.err
    assert nexus.ok("audit", "body", execution, env=ROOT).text
    assert nexus.ok("audit", "erase", sandbox_id, env=ROOT).text.startswith("Erased code and output of 1 runs")


def test_erased_is_gone_for_good_and_said(nexus: Console, execution: str) -> None:
    nexus.ok("audit", "seal")
    told = nexus.ok("audit", "erase", "box", "--json").json
    assert told["executions"] == 1
    assert told["position"] == nexus.head()
    assert nexus.write("SELECT count(*) FROM bodies") == nexus.write("SELECT count(*) FROM body_keys") == [(0,)]
    assert nexus.ok("audit", "verify").text.startswith("Intact")
    nexus.ok("audit", "seal")
    assert nexus.ok("audit", "verify").text.startswith("Intact")
    nexus.ok("projections", "verify", env=nexus.owner)
    for told in (["audit", "why"], ["replay"], ["events", "list"], ["sandbox", "timeline"], ["sandbox", "status"]):
        nexus.ok(*told, "box")
    assert "were erased" in nexus.ok("audit", "log", "box", "--type", "sandbox.bodies_erased").text
    assert "user:ann" in nexus.ok("audit", "body", execution).text
    assert nexus.ok("audit", "erase", "box").text.startswith("Nothing is kept of sb_")
    assert nexus.ok("audit", "erase", "box", "--json").json["position"] is None


def test_an_erased_row_is_no_longer_in_the_file(nexus: Console, execution: str) -> None:
    ((wrapped,),) = nexus.write("SELECT wrapped FROM body_keys")
    sealed = [row for (row,) in nexus.write("SELECT sealed FROM bodies")]
    assert len(sealed) == 3
    assert all(secret in nexus.kept() for secret in (wrapped, *sealed))
    nexus.ok("audit", "erase", "box")
    assert not [secret for secret in (wrapped, *sealed) if secret in nexus.kept()]


def test_a_body_that_was_tampered_with_ends_with_7(nexus: Console, execution: str) -> None:
    nexus.ok("audit", "seal")
    nexus.write("UPDATE bodies SET sealed = ? WHERE kind = 'stdout'", [bytes(40)])
    for options in ([], ["--json"], ["--part", "stdout"]):
        result = nexus("audit", "body", execution, *options)
        assert result.status == 7
        assert ("damaged" in result.text) != (options == ["--part", "stdout"])
    assert nexus.ok("audit", "verify").text.startswith("Intact"), "the log itself was not touched"


def test_the_key_is_shown_by_nothing(nexus: Console, execution: str) -> None:
    file = nexus.data / "keys" / "capture.key"
    key = file.read_text().strip()
    assert (file.stat().st_mode & 0o777, len(base64.b64decode(key))) == (0o600, 32)
    env = {"NEXUS_CAPTURE_KEY": key, "NEXUS_CAPTURE": "1"}
    said = ""
    for given in ({}, env):
        for command in (["doctor"], ["config", "show"]):
            for options in ([], ["--json"]):
                result = nexus(*command, *options, env=given)
                said += result.text + result.err
    assert key not in said
    assert "1 runs of 1 sandboxes are" in said
    told = nexus.ok("config", "show", "--json", env=env).json["settings"]
    assert (told["capture"]["value"], told["capture_key"]["value"], told["capture_key"]["is_set"]) == (True, None, True)
    assert (told["capture_days"]["value"], told["capture_key_file"]["value"]) == (30, str(file))


def capture_finding(nexus: Console, **env: str) -> dict[str, object]:
    (found,) = (one for one in nexus("doctor", "--json", env=env).json["findings"] if one["check"] == "capture")
    assert isinstance(found, dict)
    return found


def test_doctor_says_what_is_kept_and_whether_it_can_be(nexus: Console) -> None:
    assert str(capture_finding(nexus)["detail"]).startswith("code and output of new sandboxes are not kept by default")
    nexus.create("box")
    found = capture_finding(nexus, NEXUS_CAPTURE="1")
    assert (found["ok"], str(found["detail"])[-30:]) == (True, "; its key will be made at first use"[-30:])
    assert not (nexus.data / "keys").exists(), "looking makes nothing"
    found = capture_finding(nexus, NEXUS_CAPTURE="1", NEXUS_CAPTURE_KEY="canary")
    assert (found["ok"], found["required"], "canary" in str(found)) == (False, True, False)
    nexus.create("kept", "--capture")
    nexus.ok("sandbox", "run", "kept", "-c", "1")
    assert "under master key" in str(capture_finding(nexus)["detail"])
    (nexus.data / "keys" / "capture.key").unlink()
    found = capture_finding(nexus)
    assert (found["ok"], found["required"]) == (False, False)
    assert "openssl rand -base64 32" in str(found["hint"])


def test_a_capture_that_fails_is_said_on_the_spot(nexus: Console, execution: str) -> None:
    other = {"NEXUS_CAPTURE_KEY": base64.b64encode(os.urandom(32)).decode()}
    result = nexus("sandbox", "run", "box", "-c", "out hello", env=other)
    assert (result.status, result.text) == (0, "hello\n")
    assert "Its code was not captured" in result.err
    assert "Its output was not captured" in result.err
    told = nexus.ok("sandbox", "run", "box", "-c", "out hello", "--json", env=other)
    assert len(told.json["notes"]) == 2


def test_retention_is_a_setting(nexus: Console, execution: str) -> None:
    nexus.write("UPDATE bodies SET kept_at = '2026-01-01T00:00:00.000000+00:00'")
    operator = nexus.operator
    assert nexus.ok("reconcile", "--json", env={**operator, "NEXUS_CAPTURE_DAYS": "0"}).json["bodies_erased"] == []
    told = nexus.ok("worker", "--once", "--json").json
    assert len(told["bodies_erased"]) == 1
    assert nexus.ok("reconcile", "--json", env=operator).json["bodies_erased"] == []
    assert "code: missing" in nexus.ok("audit", "body", execution).text
    assert len(nexus.ok("audit", "log", "--actor", "system:retention", "--json").json["entries"]) == 1
    assert nexus("reconcile", env={"NEXUS_CAPTURE_DAYS": "-1"}).status == 1
