"""`nexus sandbox`: every command with right and with wrong input, inside this process."""

from __future__ import annotations

import pytest

from nexus.domain.provider import Capabilities
from tests.integration.cli import scripted
from tests.integration.cli.console import Console


# --- create ----------------------------------------------------------------------------------------------------------
def test_create_says_the_id(nexus: Console) -> None:
    result = nexus.ok("sandbox", "create", "my-sandbox", "--ttl", "30")
    assert result.text.startswith("Created sandbox: sb_")
    assert result.err == ""
    listed = nexus.ok("sandbox", "list", "--json").json["sandboxes"]
    assert [(one["name"], one["status"], one["ttl_minutes"]) for one in listed] == [("my-sandbox", "active", 30)]


def test_create_passes_on_everything_that_it_was_given(nexus: Console) -> None:
    sandbox_id = nexus.ok(
        "sandbox", "create", "box", "--json", "--label", "team=a", "--label", "run=1", "--env", "TOKEN=canary-1",
        "--env", "FROM_HERE", "--network", "none", "--memory", "64", "--cpus", "0.5", "--processes", "7", "--disk", "9",
        "--template", "t:1", "--provider", "scripted",
        env={"FROM_HERE": "canary-2"},
    ).json["sandbox_id"]  # fmt: skip
    status = nexus.ok("sandbox", "status", sandbox_id, "--json").json
    assert status["labels"] == {"team": "a", "run": "1"}
    assert status["limits"] == {"memory_mb": 64, "cpus": 0.5, "processes": 7, "disk_mb": 9}
    assert (status["network"], status["template_id"], status["provider"]) == ("none", "t:1", "scripted")
    assert status["env_names"] == ["FROM_HERE", "TOKEN"]
    (resource,) = nexus.provider.cloud.resources()
    assert resource.env == {"TOKEN": "canary-1", "FROM_HERE": "canary-2"}
    assert "canary" not in str(nexus.events())


def test_a_limit_that_is_not_given_stays_as_the_template_has_it(nexus: Console) -> None:
    sandbox_id = nexus.create("box", "--memory", "64")
    assert nexus.ok("sandbox", "status", sandbox_id, "--json").json["limits"] == {
        "memory_mb": 64, "cpus": None, "processes": 256, "disk_mb": 1024,
    }  # fmt: skip


def test_an_idempotency_key_stands_for_one_sandbox(nexus: Console) -> None:
    first = nexus.create("box", "--idempotency-key", "k1")
    assert nexus.create("box", "--idempotency-key", "k1") == first
    refused = nexus("sandbox", "create", "other", "--idempotency-key", "k1", "--json")
    assert (refused.status, refused.error["code"]) == (6, "idempotency_mismatch")


def test_a_name_in_use_is_refused_in_the_documented_words(nexus: Console) -> None:
    nexus.create("box")
    refused = nexus("sandbox", "create", "box")
    assert refused.status == 6
    assert refused.err.startswith("Error: Sandbox with name 'box' already exists for user ann\n")
    assert nexus("sandbox", "create", "box", env={"NEXUS_USER": "bob"}).status == 0


def test_an_unknown_provider_is_wrong_input(nexus: Console) -> None:
    refused = nexus("sandbox", "create", "box", "--provider", "nowhere", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid_input")
    assert "local, docker, e2b, modal, scripted" in refused.error["hint"]


def test_a_provider_that_is_down_fails_the_command_and_is_recorded(nexus: Console) -> None:
    nexus.provider.cloud.fail("ensure", "ProviderInvalidRequest")
    refused = nexus("sandbox", "create", "box", "--json")
    assert refused.status == 1
    assert nexus.story() == ["SandboxRequested", "SandboxFailed"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["create"], ["create", ""], ["create", "a/b"], ["create", "--", "-x"], ["create", "-x"], ["create", "a", "b"],
        ["create", "a", "--label", "novalue"], ["create", "a", "--label", "x=1", "--label", "x=2"],
        ["create", "a", "--label", "nexus.x=1"], ["create", "a", "--env", "NOT_SET_HERE"],
        ["create", "a", "--env", "A=1", "--env", "A=2"],
        ["create", "a", "--env", "=1"], ["create", "a", "--network", "some"], ["create", "a", "--memory", "-5"],
        ["create", "a", "--memory", "1e3"], ["create", "a", "--cpus", "nan"], ["create", "a", "--cpus", "0"],
        ["create", "a", "--cpus", "-1"], ["create", "a", "--processes", "0"], ["create", "a", "--disk", "none"],
        ["create", "a", "--idempotency-key", ""], ["create", "a", "--template", "-v"], ["create", "a", "--nosuch"],
        ["pause"], ["resume"], ["extend", "box"], ["extend", "box", "--ttl", "0"], ["extend", "box", "--ttl", "x"],
        ["stop"], ["stop", "box", "--all"], ["list", "--state", "gone"], ["list", "--all", "--state", "active"],
        ["list", "--limit", "0"], ["list", "--limit", "1001"], ["list", "--cursor", "rubbish"], ["list", "extra"],
        ["list", "--label", "novalue"], ["list", "--watch", "--cursor", "x"], ["status"], ["cp", "a"], ["cp", "a", "b"],
        ["cp", "x:a", "y:b"], ["logs"], ["logs", "box", "--limit", "0"], ["nosuch"], [],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_use_is_status_2_and_records_nothing(nexus: Console, wrong: list[str]) -> None:
    nexus.create("box")
    before = nexus.head()
    result = nexus("sandbox", *wrong)
    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith(("Error: ", "Usage: "))
    assert nexus.head() == before


@pytest.mark.parametrize(
    "command",
    [
        ["run", "box", "-c", "1"], ["exec", "box", "--", "ls"], ["pause", "box"], ["resume", "box"], ["stop", "box"],
        ["extend", "box", "--ttl", "5"], ["status", "box"], ["logs", "box"], ["cp", "box:/a", "./x"],
        ["cp", "-", "box:/a"], ["status", "box", "--verify"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_anothers_sandbox_answers_as_an_unknown_one(nexus: Console, command: list[str]) -> None:
    words = ["sandbox", command[0], "--json", *command[1:]]
    unknown = nexus(*words)
    nexus.ok("sandbox", "create", "box", env={"NEXUS_USER": "bob"})
    before = nexus.head()
    theirs = nexus(*words)
    assert (theirs.status, theirs.out, theirs.err) == (unknown.status, unknown.out, unknown.err)
    assert (theirs.status, theirs.error["code"]) == (5, "sandbox_not_found")
    assert [event.topic for event in nexus.events(before)] == (
        [] if command[0] in ("status", "logs") else ["command.refused"]
    )


# --- list and status -------------------------------------------------------------------------------------------------
def test_a_list_before_anything_was_made_is_empty_and_makes_nothing(nexus: Console) -> None:
    assert nexus.ok("sandbox", "list", "--json").json == {"sandboxes": [], "next_cursor": None}
    assert nexus.ok("sandbox", "list").text.split() == ["ID", "NAME", "STATUS", "PROVIDER", "CREATED", "EXPIRES", "IN"]
    assert not nexus.data.exists()


def test_list_filters(nexus: Console) -> None:
    one = nexus.create("one", "--label", "team=a")
    two = nexus.create("two", "--label", "team=b")
    nexus.ok("sandbox", "pause", two)
    gone = nexus.create("gone")
    nexus.ok("sandbox", "stop", gone)

    def listed(*options: str) -> list[str]:
        return nexus.ok("sandbox", "list", "--quiet", *options).text.split()

    assert listed() == [two, one]
    assert listed("--all") == [gone, two, one]
    assert listed("--state", "stopped") == [gone]
    assert listed("--state", "paused", "--state", "active") == [two, one]
    assert listed("--label", "team=a") == [one]
    assert listed("--name", "two") == [two]
    assert listed("--provider", "docker") == []


def test_list_pages(nexus: Console) -> None:
    made = [nexus.create(f"box-{number}") for number in range(5)][::-1]
    first = nexus.ok("sandbox", "list", "--json", "--limit", "2").json
    second = nexus.ok("sandbox", "list", "--json", "--limit", "2", "--cursor", first["next_cursor"]).json
    rest = nexus.ok("sandbox", "list", "--json", "--limit", "2", "--cursor", second["next_cursor"]).json
    ids = [one["sandbox_id"] for page in (first, second, rest) for one in page["sandboxes"]]
    assert (ids, rest["next_cursor"]) == (made, None)
    assert len(nexus.ok("sandbox", "list", "--json").json["sandboxes"]) == 5


def test_a_list_without_a_limit_is_whole(nexus: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.cli.sandbox.listing._PAGE", 2)
    made = [nexus.create(f"box-{number}") for number in range(5)][::-1]
    assert nexus.ok("sandbox", "list", "--quiet").text.split() == made


def test_lists_of_other_users_are_for_admins(nexus: Console) -> None:
    nexus.create("box")
    assert nexus.ok("sandbox", "list", "--json", env={"NEXUS_USER": "bob"}).json["sandboxes"] == []
    refused = nexus("sandbox", "list", "--all-users", "--json", env={"NEXUS_USER": "bob"})
    assert (refused.status, refused.error["code"]) == (4, "not_allowed")
    admin = nexus.ok("sandbox", "list", "--all-users", env={"NEXUS_USER": "root", "NEXUS_ADMIN": "1"})
    assert "USER" in admin.text
    assert " ann" in admin.text


def test_a_table_in_a_pipe_is_aligned_text(nexus: Console) -> None:
    nexus.create("a")
    nexus.create("a-longer-name")
    header, first, second = nexus.ok("sandbox", "list").text.splitlines()
    assert header.index("STATUS") == first.index("active") == second.index("active")


def test_status_shows_what_is_known(nexus: Console) -> None:
    sandbox_id = nexus.create("box", "--label", "team=a")
    nexus.ok("sandbox", "run", "box", "-c", "out hi")
    told = nexus.ok("sandbox", "status", "box").text
    for line in (sandbox_id, "active", "scripted", "ann (tenant default)", "team=a", "10 min", "memory_mb 1024"):
        assert line in told
    assert nexus.ok("sandbox", "status", "box", "--quiet").text == "active\n"
    assert nexus.ok("sandbox", "status", sandbox_id[:9], "--json").json["sandbox_id"] == sandbox_id


def test_status_verify_looks_at_the_resource(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    nexus.provider.cloud.vanish(sandbox_id)
    assert nexus.ok("sandbox", "status", sandbox_id, "--json").json["status"] == "active"
    verified = nexus.ok("sandbox", "status", sandbox_id, "--verify", "--json").json
    assert (verified["status"], verified["stop_reason"]) == ("stopped", "lost")


# --- pause, resume, extend, stop -------------------------------------------------------------------------------------
def test_pause_and_resume(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    assert nexus.ok("sandbox", "pause", "box").text == f"Paused sandbox: {sandbox_id}\n"
    assert nexus.ok("sandbox", "pause", "box", "--json").json["status"] == "paused"
    assert nexus.ok("sandbox", "resume", "box").text == f"Resumed sandbox: {sandbox_id}\n"
    assert nexus.ok("sandbox", "resume", "box", "--json").json["status"] == "active"
    assert nexus.ok("sandbox", "resume", "box", "--quiet").text == f"{sandbox_id}\n"


def test_a_provider_that_cannot_pause_says_who_can(nexus: Console) -> None:
    nexus.provider = scripted.provider(nexus.cloud, Capabilities(pause="none"))
    nexus.create("box")
    before = nexus.head()
    refused = nexus("sandbox", "pause", "box", "--json")
    assert (refused.status, refused.error["code"]) == (1, "provider_unsupported")
    assert refused.error["message"] == "Provider scripted cannot pause"
    assert [event.topic for event in nexus.events(before)] == ["command.refused"]


def test_extend_only_lengthens(nexus: Console) -> None:
    sandbox_id = nexus.create("box", "--ttl", "30")
    assert nexus.ok("sandbox", "extend", "box", "--ttl", "60").text == f"Extended sandbox: {sandbox_id} (1 h left)\n"
    longer = nexus.ok("sandbox", "status", "box", "--json").json["expires_at"]
    assert nexus.ok("sandbox", "extend", "box", "--ttl", "1", "--json").json["expires_at"] == longer


def test_what_is_stopped_allows_nothing(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    assert nexus.ok("sandbox", "stop", "box").text == f"Stopped sandbox: {sandbox_id}\n"
    for command in (["run", sandbox_id, "-c", "1"], ["pause", sandbox_id], ["resume", sandbox_id]):
        refused = nexus("sandbox", *command, "--json")
        assert (refused.status, refused.error["code"]) == (6, "illegal_transition")
        assert "stopped" in refused.error["message"]
    assert nexus.ok("sandbox", "stop", sandbox_id, "--json").json["status"] == "stopped"


def test_stop_several_stops_what_it_can(nexus: Console) -> None:
    first, second = nexus.create("one"), nexus.create("two")
    result = nexus("sandbox", "stop", "one", "nobody", "two", "--json")
    assert (result.status, result.error["code"]) == (5, "sandbox_not_found")
    assert [(one["sandbox_id"], one["status"]) for one in result.json["sandboxes"]] == [
        (first, "stopped"),
        (second, "stopped"),
    ]


def test_stop_all_stops_the_callers_own(nexus: Console) -> None:
    mine = {nexus.create("one"), nexus.create("two")}
    nexus.ok("sandbox", "create", "box", env={"NEXUS_USER": "bob"})
    assert set(nexus.ok("sandbox", "stop", "--all", "--quiet").text.split()) == mine
    assert nexus.ok("sandbox", "stop", "--all", "--json").json == {"sandboxes": []}
    assert len(nexus.ok("sandbox", "list", "--json", env={"NEXUS_USER": "bob"}).json["sandboxes"]) == 1


# --- logs ------------------------------------------------------------------------------------------------------------
def test_logs_tell_what_was_run_and_not_what_it_said(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out canary-output")
    nexus("sandbox", "run", "box", "-l", "bash", "-c", "exit 7")
    nexus("sandbox", "run", "box", "--timeout", "1", "-c", "sleep 60")
    told = nexus.ok("sandbox", "logs", "box", "--json").json
    assert told["sandbox_id"] == sandbox_id
    assert [(run["language"], run["status"], run["exit_code"], run["stdout_bytes"]) for run in told["executions"]] == [
        ("python", "finished", 0, 14), ("bash", "finished", 7, 0), ("python", "timed_out", 124, 0),
    ]  # fmt: skip
    assert "canary" not in str(told)
    assert [
        run["status"] for run in nexus.ok("sandbox", "logs", "box", "--limit", "1", "--json").json["executions"]
    ] == ["timed_out"]
    table = nexus.ok("sandbox", "logs", "box").text
    assert "timed out" in table
    assert len(table.splitlines()) == 4
    assert len(nexus.ok("sandbox", "logs", "box", "--quiet").text.split()) == 3
