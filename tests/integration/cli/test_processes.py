"""What only a process of its own can show: signals, pipes, odd surroundings, and what is imported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.cli.console import PATIENCE, Console, reading


# --- signals and pipes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda v: str(v)
)
def test_a_signal_during_a_run_kills_the_code_and_is_recorded(
    nexus: Console, number: signal.Signals, status: int
) -> None:
    nexus.create("box")
    process = nexus.start("sandbox", "run", "box", "--timeout", "60", "-c", "out begun\nsleep 60")
    try:
        assert process.stdout is not None
        assert next(reading(process.stdout)) == b"begun"
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"Error: ")
    finally:
        process.kill()
        process.communicate()
    assert nexus.story()[-1] == "ExecutionLost"
    assert [run.end for run in nexus.provider.cloud.executions()] == ["interrupted"]


def test_a_signal_in_json_mode_is_an_error_object(nexus: Console) -> None:
    nexus.create("box")
    process = nexus.start("sandbox", "run", "box", "--json", "-c", "sleep 60")
    try:
        while not nexus.provider.cloud.executions():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out, json.loads(err)["error"]["code"]) == (130, b"", "interrupted")


def shell(nexus: Console, script: str) -> subprocess.CompletedProcess[bytes]:
    """A bash script in which `nexus` is this command line."""
    prelude = f'nexus() {{ {sys.executable} -m nexus.cli "$@"; }}\n'
    return subprocess.run(
        ["/bin/bash", "-c", prelude + script],
        env=nexus.environment(),
        cwd=nexus.folder,
        capture_output=True,
        timeout=PATIENCE,
    )


def test_head_ends_a_list_and_a_run_in_silence(nexus: Console) -> None:
    for number in range(3):
        nexus.create(f"box-{number}")
    done = shell(nexus, "nexus sandbox list | head -n 1; echo ${PIPESTATUS[0]}")
    assert done.stderr == b""
    assert done.stdout.startswith(b"ID")
    assert done.stdout.splitlines()[-1] in (b"0", b"141")
    flood = "\n".join(["flood 65536", "sleep 0.05"] * 12)
    (nexus.folder / "flood").write_text(flood)
    done = shell(nexus, "nexus sandbox run box-1 -f flood | head -c 10; s=${PIPESTATUS[0]}; echo; echo $s")
    assert (done.stdout, done.stderr) == (b"x" * 10 + b"\n141\n", b"")
    assert nexus.story()[-1] == "ExecutionLost"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(nexus: Console, redirection: str) -> None:
    done = shell(nexus, f"nexus sandbox create box --quiet {redirection}; echo $?; nexus sandbox list --quiet")
    status, listed = done.stdout.split()[-2:]
    assert status == b"0"
    assert listed.startswith(b"sb_")
    assert done.stderr == b""
    assert nexus.story() == ["SandboxRequested", "SandboxStarted"], "the store is whole"


def test_no_file_gets_the_number_of_a_closed_stream(nexus: Console) -> None:
    program = "import os; from nexus.cli.terminal import prepare_streams; prepare_streams(); os._exit(os.dup(0))"
    for redirection in (">&-", "2>&- <&-", "<&- >&- 2>&-"):
        done = shell(nexus, f"{sys.executable} -c '{program}' {redirection}; echo $?")
        assert int(done.stdout) >= 3


def test_a_full_disk_behind_stdout(nexus: Console) -> None:
    nexus.create("box")
    with Path("/dev/full").open("wb") as full:
        result = nexus.process("sandbox", "list", stdout=full)
        assert result.status == 1
        assert result.err == "Error: The operating system reports: No space left on device\n"
        result = nexus.process("sandbox", "run", "box", "-c", "out x", stdout=full)
        assert result.status == 1
    assert nexus.story()[-1] == "ExecutionLost"


# --- odd surroundings ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "env",
    [
        {"TZ": "Pacific/Kiritimati"}, {"TZ": ":/no/such"}, {"TZ": "\x01"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"COLUMNS": "1"}, {"COLUMNS": "-5"},
        {"TERM": ""},
        {"HOME": None}, {"HOME": ""}, {"HOME": "/nonexistent"}, {"PATH": ""}, {"NEXUS_DEBUG": "0"},
    ],
    ids=str,
)  # fmt: skip
def test_it_works_whatever_the_environment_says(nexus: Console, env: dict[str, str | None]) -> None:
    nexus.create("box")
    result = nexus.process("sandbox", "run", "box", "-c", "out é日", env=env)
    assert (result.status, result.out) == (0, "é日\n".encode())
    shown = nexus.process("sandbox", "status", nexus.create("labelled", "--label", "a=é日"), env=env)
    assert (shown.status, shown.err) == (0, "")
    assert any(line.startswith("Labels") for line in shown.out.decode(errors="replace").splitlines())
    refused = nexus.process("sandbox", "status", "né", env=env)
    assert refused.status == 5
    assert refused.err.startswith("Error: Sandbox 'n\\")


def test_without_a_home_the_user_comes_from_the_system(nexus: Console) -> None:
    env = {"HOME": None, "NEXUS_USER": None, "LOGNAME": None, "USER": None}
    assert nexus.process("sandbox", "create", "box", env=env).status == 0


def test_a_data_folder_that_cannot_be_made(nexus: Console, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    result = nexus("sandbox", "create", "box", "--json", env={"NEXUS_DATA_DIR": str(blocked / "x")})
    assert (result.status, result.error["code"]) == (1, "store_unavailable")
    assert "NEXUS_DATA_DIR" in result.error["hint"]
    assert nexus("sandbox", "list", env={"NEXUS_DATA_DIR": str(blocked / "x")}).status in (0, 1)


def confined(nexus: Console, mounts: list[str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A call that sees the file system with other mounts."""
    command = ["bwrap", "--dev-bind", "/", "/", *mounts, "--", sys.executable, "-m", "nexus.cli", *arguments]
    return subprocess.run(command, env=nexus.environment(), capture_output=True, timeout=PATIENCE)


def test_a_read_only_home(nexus: Console) -> None:
    """It holds everything: data, configuration, caches. What was made before can still be read."""
    sandbox_id = nexus.create("box")
    mounts = ["--ro-bind", str(nexus.folder), str(nexus.folder)]
    for arguments in (["sandbox", "list", "--quiet"], ["sandbox", "list", "--quiet", "--all"]):
        done = confined(nexus, mounts, *arguments)
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [sandbox_id.encode()], b"")
    done = confined(nexus, mounts, "sandbox", "create", "more", "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "store_unavailable"
    assert confined(nexus, mounts, "doctor").returncode == 1


def test_a_full_disk_behind_the_store(nexus: Console) -> None:
    nexus.data.mkdir()
    mounts = ["--size", str(64 * 1024), "--tmpfs", str(nexus.data)]
    done = confined(nexus, mounts, "sandbox", "create", "box", "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "store_unavailable"
    assert "disk" in error["message"] + error["hint"]


def test_details_are_given_when_asked_for(nexus: Console) -> None:
    nexus.create("box")
    with nexus.start("sandbox", "run", "box", "-c", "raise ZeroDivisionError", env={"NEXUS_DEBUG": "1"}) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert b"Traceback" in err
    assert b"the provider says ZeroDivisionError" in err


# --- several processes on one data folder ----------------------------------------------------------------------------
def test_several_processes_share_one_data_folder(nexus: Console) -> None:
    """They begin together on a folder that is not there yet, each with its own sandbox and one that all share."""

    def one(number: int) -> list[int]:
        create = nexus.process("sandbox", "create", "shared")
        own = nexus.process("sandbox", "create", f"own-{number}")
        run = nexus.process("sandbox", "run", f"own-{number}", "-c", f"out {number}")
        assert run.out == f"{number}\n".encode()
        return [create.status, own.status, run.status]

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(one, range(4)))
    assert sorted(end[0] for end in ends) == [0, 6, 6, 6]
    assert all(end[1:] == [0, 0] for end in ends)
    names = {one["name"] for one in nexus.ok("sandbox", "list", "--json").json["sandboxes"]}
    assert names == {"shared", "own-0", "own-1", "own-2", "own-3"}
    nexus.ok("projections", "verify", env=nexus.owner)


def test_watching_sees_what_another_process_does(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    process = nexus.start("sandbox", "status", "box", "--watch", "--json")
    try:
        assert process.stdout is not None
        lines = reading(process.stdout)
        assert json.loads(next(lines))["status"] == "active"
        nexus.ok("sandbox", "pause", "box")
        assert json.loads(next(lines))["sandbox_id"] == sandbox_id
        nexus.ok("sandbox", "stop", "box")
        assert json.loads(list(lines)[-1])["status"] == "stopped"
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def test_watching_a_list_until_interrupted(nexus: Console) -> None:
    process = nexus.start("sandbox", "list", "--watch", "--json")
    try:
        assert process.stdout is not None
        lines = reading(process.stdout)
        assert json.loads(next(lines)) == {"sandboxes": []}
        sandbox_id = nexus.create("box")
        while not (seen := json.loads(next(lines))["sandboxes"]):
            pass
        assert seen[0]["sandbox_id"] == sandbox_id
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.communicate()


# --- what a call imports ---------------------------------------------------------------------------------------------
SDKS = {"docker", "e2b", "modal", "grpclib", "httpx", "requests"}
HEAVY = {*SDKS, "psycopg", "eventsourcing", "pydantic", "transitions", "tenacity", "rich", "asyncio", "logging"}
"""Each costs a call more than all the rest of a read together."""


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], HEAVY | {"sqlite3"}),
        (["--version"], HEAVY | {"sqlite3"}),
        (["sandbox", "--help"], HEAVY | {"sqlite3"}),
        (["sandbox", "run", "--help"], HEAVY | {"sqlite3"}),
        (["sandbox", "list"], HEAVY),
        (["sandbox", "list", "--json", "--all"], HEAVY),
        (["sandbox", "status", "box"], HEAVY),
        (["config", "show"], HEAVY | {"sqlite3"}),
        (["sandbox", "run", "box", "-c", "out x"], {*SDKS, "psycopg", "rich"}),
        (["sandbox", "create", "more"], {*SDKS, "psycopg", "rich"}),
        (["events", "list"], {*SDKS, "psycopg", "rich", "transitions"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_imports(nexus: Console, arguments: list[str], never: set[str], imports_of_the_store: set[str]) -> None:
    """On what is imported, not on seconds: these do not depend on the machine."""
    nexus.create("box")
    script = (
        "import sys\n"
        "from nexus.cli import main\n"
        f"status = main({arguments!r})\n"
        "sys.stderr.write('\\n'.join(sys.modules))\n"
        "sys.exit(status)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=nexus.environment(), cwd=nexus.folder, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.decode().split())
    assert "click" in imported
    assert imported & never - imports_of_the_store == set()
    if "--help" in arguments:
        assert not [name for name in imported if name.startswith(("nexus.engine", "nexus.adapters"))]
