"""Every python block of the source document, word for word, through the real facade on the default provider."""

from __future__ import annotations

import io
import logging
import os
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nexus import LocalBackend, NexusFS, config
from nexus.domain.errors import ExecutionTimedOut, InvalidInput, NexusError
from tests.seed.blocks import blocks, execute, execute_text
from tests.seed.conftest import Result

COVERED = {
    "Ephemeral Environments",
    "Multi-Language Support",
    "Provider Abstraction",
    "Create and Use a Sandbox",
    "List and Monitor Sandboxes",
    "Timeout Control",
    "Code Input Methods",
    "Error Handling",
    "Pause/Resume (Provider-Dependent)",
    "Example 1: Data Analysis Agent",
    "Example 2: Multi-Language Code Execution",
    "Example 3: CrewAI Integration",
    "TTL Management",
    "Automatic Cleanup",
    "Cost Optimization",
    "Error Recovery",
    "Problem: Sandbox creation fails",
    "Problem: Code execution times out",
    "Problem: Sandbox list is empty",
    "Track Sandbox Usage",
    "Log Execution Results",
    "Python API",  # see test_reference.py
}


def test_no_block_is_forgotten() -> None:
    assert set(blocks("python")) == COVERED


def status_of(nx: NexusFS, sandbox_id: str) -> str:
    return str(nx.sandbox_status(sandbox_id)["status"])


# --- core concepts ---------------------------------------------------------------------------------------------------
def test_ephemeral_environments(nx: NexusFS) -> None:
    sandbox_id = nx.sandbox_create("thirty", ttl_minutes=30)["sandbox_id"]
    names = execute("Ephemeral Environments", nx=nx, sandbox_id=sandbox_id)
    assert names["sandbox"]["ttl_minutes"] == 30
    status = nx.sandbox_status(sandbox_id)
    end, last = (datetime.fromisoformat(status[key]) for key in ("expires_at", "last_active_at"))
    assert end - last == timedelta(minutes=30), "each run starts the time to live anew"
    assert last > datetime.fromisoformat(status["created_at"])


def test_three_languages(nx: NexusFS, sandbox_id: str, runs: list[Result]) -> None:
    nx.sandbox_run(sandbox_id, "bash", "printf 'a,b\\n1,2\\n3,4\\n' > data.csv")
    execute("Multi-Language Support", nx=nx, sandbox_id=sandbox_id)
    _, python, javascript, bash = runs
    assert [run["exit_code"] for run in (python, javascript, bash)] == [0, 0, 0], runs
    assert "count  2.000000  2.000000" in python["stdout"]
    assert javascript["stdout"] == "[ 2, 4, 6, 8, 10 ]\n"
    assert "data.csv" in bash["stdout"]
    assert "Filesystem" in bash["stdout"]


def test_switching_providers_needs_the_cloud_s_key_and_nothing_else(
    installation: Path, nx: NexusFS, capsys: pytest.CaptureFixture[str], runs: list[Result]
) -> None:
    given = {"NexusFS": NexusFS, "LocalBackend": LocalBackend, "os": os}
    with pytest.raises(NexusError, match=r"^E2B API key required"):
        execute("Provider Abstraction", **given)
    same = blocks("python")["Provider Abstraction"].text.partition("# Same API works for both\n")[2]
    names = execute_text(same, nx=nx)
    assert names["result"]["stdout"] == "Hello\n"


# --- quick start -----------------------------------------------------------------------------------------------------
def test_create_and_use(installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = execute("Create and Use a Sandbox")
    printed = capsys.readouterr().out
    assert f"Created: {names['sandbox_id']}\n" in printed
    assert "STDOUT: Python 3." in printed
    assert "2 + 2 = 4\n" in printed
    assert "Exit Code: 0\n" in printed
    assert names["sandbox"]["ttl_minutes"] == 20
    assert status_of(names["nx"], names["sandbox_id"]) == "stopped"


def test_list_and_monitor(nx: NexusFS, sandbox_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    execute("List and Monitor Sandboxes", nx=nx, sandbox_id=sandbox_id)
    printed = capsys.readouterr().out
    assert "already-there: active (expires: 2" in printed
    assert "Uptime: " in printed
    assert "Last active: 2" in printed


# --- advanced features -----------------------------------------------------------------------------------------------
def test_timeout(nx: NexusFS, sandbox_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    execute("Timeout Control", nx=nx, sandbox_id=sandbox_id)
    assert capsys.readouterr().out == "Timeout: Code execution exceeded 5 second timeout\n"
    assert status_of(nx, sandbox_id) == "active"


def test_code_input(nx: NexusFS, sandbox_id: str, runs: list[Result]) -> None:
    execute("Code Input Methods", nx=nx, sandbox_id=sandbox_id)
    assert [run["stdout"] for run in runs] == ["inline\n"]


def test_failing_code(nx: NexusFS, sandbox_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = execute("Error Handling", nx=nx, sandbox_id=sandbox_id)
    assert names["result"]["exit_code"] == 1
    printed = capsys.readouterr().out
    assert printed.startswith("Error occurred:\n")
    assert "ZeroDivisionError: division by zero" in printed


def test_pause_and_resume(nx: NexusFS, sandbox_id: str) -> None:
    execute("Pause/Resume (Provider-Dependent)", nx=nx, sandbox_id=sandbox_id)
    status = nx.sandbox_status(sandbox_id)
    assert (status["status"], status["paused_at"]) == ("active", None)
    assert nx.sandbox_run(sandbox_id, "python", "print('awake')")["stdout"] == "awake\n"


# --- integration examples --------------------------------------------------------------------------------------------
def test_data_analysis_agent(installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with NexusFS(backend=LocalBackend()) as earlier:
        earlier.write("/workspace/data/sales.csv", "region,amount\nnorth,10\nsouth,32\n'west\",0\n")
    names = execute("Example 1: Data Analysis Agent")
    assert names["report"]["success"], names["report"]
    printed = capsys.readouterr().out
    assert "Rows: 3\n" in printed
    assert "Columns: ['region', 'amount']\n" in printed
    assert "mean   14.0" in printed
    assert names["nx"].sandbox_list()["sandboxes"] == [], "the example cleans up"


def test_multi_language_execution(nx: NexusFS) -> None:
    results = execute("Example 2: Multi-Language Code Execution", nx=nx)["results"]
    assert [result["success"] for result in results] == [True, True, True], results
    assert [result["output"] for result in results[:2]] == ['{"result":42}\n', "15\n"]
    user, folder = results[2]["output"].splitlines()
    assert user
    assert folder == "/home/user"


class Recorded:
    """Takes what an agent, a task or a crew is made with."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def kickoff(self) -> str:
        return "done"


def test_crewai(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the example itself goes: `str.format` stumbles over the braces of its own f-strings."""
    crewai = ModuleType("crewai")
    for name in ("Agent", "Task", "Crew"):
        setattr(crewai, name, type(name, (Recorded,), {}))
    monkeypatch.setitem(sys.modules, "crewai", crewai)
    heading = "Example 3: CrewAI Integration"
    names: dict[str, Any] = {"__name__": "snippet"}
    with pytest.raises(KeyError, match="statistics"):
        exec(blocks("python")[heading].text, names)
    nx = names["nx"]
    assert nx.sandbox_status(names["sandbox_id"])["ttl_minutes"] == 60
    nx.sandbox_stop(names["sandbox_id"])
    mended = blocks("python")[heading].text.replace("{statistics", "{{statistics").replace(")}", ")}}")
    names = execute_text(mended)
    assert names["result"] == "done"
    assert names["sandbox_id"] in names["analyze_task"].given["description"]
    assert status_of(names["nx"], names["sandbox_id"]) == "stopped"


# --- production considerations ---------------------------------------------------------------------------------------
def test_times_to_live(nx: NexusFS) -> None:
    execute("TTL Management", nx=nx)
    lives = {each["name"]: each["ttl_minutes"] for each in nx.sandbox_list()["sandboxes"]}
    assert lives == {"quick-task": 5, "user-session": 30, "batch-job": 120}


def test_automatic_cleanup_is_described_and_on(nx: NexusFS, installation: Path) -> None:
    before = {"nx": nx}
    assert execute("Automatic Cleanup", **before).keys() - before.keys() <= {"__name__", "__builtins__"}
    assert config.load().sweep_seconds == 5 * 60


def test_cost_optimization(nx: NexusFS, runs: list[Result]) -> None:
    tasks = [{"id": number, "code": f"print({number})"} for number in range(2)]
    execute("Cost Optimization", nx=nx, tasks=tasks)
    assert [run["stdout"] for run in runs] == ["0\n", "1\n", "0\n", "1\n"]
    assert nx.sandbox_list()["sandboxes"] == []
    assert len(nx.sandbox_list(include_stopped=True)["sandboxes"]) == 3


def error_recovery(nx: NexusFS, dangerous_code: str) -> Any:
    """The block returns, so it is the body of a function."""
    body = "def recovered():\n" + textwrap.indent(blocks("python")["Error Recovery"].text, "    ")
    logger = logging.getLogger("seed.recovery")
    return execute_text(body, nx=nx, dangerous_code=dangerous_code, logger=logger)["recovered"]()


def test_error_recovery(nx: NexusFS, caplog: pytest.LogCaptureFixture) -> None:
    assert error_recovery(nx, "print('survived')")["stdout"] == "survived\n"
    assert error_recovery(nx, "import os; os.abort()")["exit_code"] == 128 + 6
    with pytest.raises(InvalidInput):
        error_recovery(nx, "print('\0')")
    assert "Sandbox execution failed: The code holds a NUL character" in caplog.text
    assert nx.sandbox_list()["sandboxes"] == [], "cleaned up in every case"


# --- troubleshooting -------------------------------------------------------------------------------------------------
def test_sandbox_creation_fails(installation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E2B_API_KEY", "to be restored")
    execute("Problem: Sandbox creation fails")
    assert config.load().e2b_api_key == "your-key"


def test_code_execution_times_out(nx: NexusFS, sandbox_id: str) -> None:
    names = execute("Problem: Code execution times out", nx=nx, sandbox_id=sandbox_id, code="print('in time')")
    assert names["result"]["stdout"] == "in time\n"


def test_sandbox_list_is_empty(nx: NexusFS, installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nx.sandbox_create("mine")
    with NexusFS(backend=LocalBackend(), user_id="somebody-else") as other:
        assert execute("Problem: Sandbox list is empty", nx=other)["sandboxes"] == {"sandboxes": []}
    assert capsys.readouterr().out == "User: somebody-else\n"


# --- monitoring ------------------------------------------------------------------------------------------------------
def test_track_usage(nx: NexusFS, sandbox_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    nx.sandbox_pause(nx.sandbox_create("asleep")["sandbox_id"])
    execute("Track Sandbox Usage", nx=nx)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "Active sandboxes: 1"
    assert second.startswith("  already-there: ")
    assert float(second.removeprefix("  already-there: ").removesuffix("s uptime")) >= 0


def test_log_results(nx: NexusFS, sandbox_id: str, caplog: pytest.LogCaptureFixture) -> None:
    run_with_logging = execute("Log Execution Results", nx=nx)["run_with_logging"]
    with caplog.at_level(logging.INFO):
        result = run_with_logging(sandbox_id, "print('logged')")
    assert result["stdout"] == "logged\n"
    (record,) = [each for each in caplog.records if each.message == "Sandbox execution"]
    said = vars(record)
    assert (said["sandbox_id"], said["exit_code"], said["stdout_length"]) == (sandbox_id, 0, len("logged\n"))
    assert said["execution_time"] > 0


# --- what the document says in words ---------------------------------------------------------------------------------
def test_the_messages_of_the_document(nx: NexusFS, sandbox_id: str) -> None:
    with pytest.raises(NexusError, match=r"^Sandbox with name 'already-there' already exists for user "):
        nx.sandbox_create("already-there")
    unknown = "sb_" + "0" * 32
    with pytest.raises(NexusError, match=rf"^Sandbox {unknown} not found$"):
        nx.sandbox_status(unknown)
    with pytest.raises(ExecutionTimedOut) as late:
        nx.sandbox_run(sandbox_id, "python", "print('so far', flush=True)\nwhile True: pass", timeout=1)
    assert str(late.value) == "Code execution exceeded 1 second timeout"
    assert late.value.stdout == "so far\n"


def test_stopped_is_final(nx: NexusFS, sandbox_id: str) -> None:
    nx.sandbox_stop(sandbox_id)
    with pytest.raises(NexusError, match="stopped"):
        nx.sandbox_resume(sandbox_id)
    assert nx.sandbox_stop(sandbox_id)["status"] == "stopped"


def test_files_for_analysis_are_bytes(nx: NexusFS) -> None:
    nx.write("/workspace/a.bin", b"\x00\xff")
    assert io.BytesIO(nx.read("/workspace/a.bin")).read() == b"\x00\xff"
