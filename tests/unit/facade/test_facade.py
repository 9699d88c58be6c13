"""The simple door: the shape of what goes in and comes out."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import nexus
from nexus import LocalBackend, NexusFS
from nexus.domain.errors import ConfigurationError, ExecutionTimedOut, InvalidInput, NotFound
from nexus.engine.registry import Providers
from nexus.testing import FakeProvider, FakeRun, Outcome
from tests.support.postgres import TestDatabase

SANDBOX_KEYS = (
    "sandbox_id", "name", "status", "provider", "template_id", "user_id", "agent_id", "tenant_id", "created_at",
    "last_active_at", "paused_at", "stopped_at", "ttl_minutes", "expires_at", "uptime_seconds", "stop_reason",
)  # fmt: skip
RUN_KEYS = ("stdout", "stderr", "exit_code", "execution_time", "execution_id", "timed_out", "truncated")


@pytest.fixture(autouse=True)
def settings(database: TestDatabase | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if database is not None:
        monkeypatch.setenv("NEXUS_DATABASE_URL", database.application)


@pytest.fixture
def nx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NexusFS:
    monkeypatch.setattr(Providers, "get", lambda self, name: self._made.setdefault(name, FakeProvider(name=name)))
    return NexusFS(LocalBackend(), data_dir=str(tmp_path), sandbox_provider="fake", user_id="ann", auto_cleanup=False)


def test_the_keys_are_frozen(nx: NexusFS) -> None:
    with nx:
        sandbox = nx.sandbox_create("a", ttl_minutes=20)
        assert tuple(sandbox) == SANDBOX_KEYS
        assert tuple(nx.sandbox_run(sandbox["sandbox_id"], "python", "1")) == RUN_KEYS
        for answer in (
            nx.sandbox_status("a"), nx.sandbox_pause("a"), nx.sandbox_resume("a"), nx.sandbox_extend("a", 30),
            nx.sandbox_stop("a"),
        ):  # fmt: skip
            assert tuple(answer) == SANDBOX_KEYS
        assert nx.sandbox_list() == {"sandboxes": []}
        assert len(nx.sandbox_list(include_stopped=True)["sandboxes"]) == 1


def test_a_time_out_raises_the_documented_message(nx: NexusFS) -> None:
    def sleepy(run: FakeRun) -> Outcome:
        run.wait(60)
        return Outcome(0)

    with nx:
        nx.sandbox_create("a")
        nx.engine.providers.get("fake").behaviour = sleepy  # type: ignore[attr-defined]
        with pytest.raises(ExecutionTimedOut, match=r"^Code execution exceeded 1 second timeout$"):
            nx.sandbox_run("a", "python", code="…", timeout=1)


def test_current_user(nx: NexusFS) -> None:
    with nx:
        assert nx.current_user == "ann"


def test_the_past_is_asked_for_in_the_same_way(nx: NexusFS) -> None:
    with nx:
        sandbox_id = nx.sandbox_create("a")["sandbox_id"]
        active = nx.engine.store.head()
        nx.sandbox_pause("a")
        time = nx.engine.store.read(0, 100)[-1].recorded_at
        nx.sandbox_stop("a")
        assert time is not None
        for moment, status in ((active, "active"), (str(active), "active"), (time, "paused"), (str(time), "paused")):
            was = nx.sandbox_status("a", as_of=moment)
            assert (tuple(was), was["status"]) == (SANDBOX_KEYS, status)
            assert [one["sandbox_id"] for one in nx.sandbox_list(as_of=moment)["sandboxes"]] == [sandbox_id]
        assert nx.sandbox_list(as_of=0) == {"sandboxes": []}
        assert nx.sandbox_list(as_of=nx.engine.store.head()) == {"sandboxes": []}
        assert len(nx.sandbox_list(as_of=nx.engine.store.head(), include_stopped=True)["sandboxes"]) == 1
        with pytest.raises(NotFound):
            nx.sandbox_status(sandbox_id, as_of=0)
        for wrong in (-1, True, 1.5, "yesterday", datetime(2030, 1, 1), 1 << 63):
            with pytest.raises(InvalidInput):
                nx.sandbox_list(as_of=wrong)  # type: ignore[arg-type]


def test_files_stay_below_the_root(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "root")
    assert backend.write("/workspace/data/sales.csv", "a,b\n") == 4
    assert backend.read("workspace/data/sales.csv") == b"a,b\n"
    (tmp_path / "root" / "out").symlink_to("/etc")
    for path in ("../x", "/a/../../x", "out/passwd", "", "/", "a\0b"):
        with pytest.raises(InvalidInput):
            backend.read(path)
    with pytest.raises(NotFound):
        backend.read("/none")


def test_e2b_without_a_key_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2B_API_KEY", raising=False)
    with NexusFS(sandbox_provider="e2b", data_dir=str(tmp_path)) as nx, pytest.raises(ConfigurationError) as caught:
        nx.sandbox_create("a")
    assert str(caught.value) == "E2B API key required"
    assert "E2B_API_KEY" in caught.value.hint


def test_the_public_names_are_pinned() -> None:
    assert nexus.__all__ == [
        "Engine",
        "LocalBackend",
        "NexusError",
        "NexusFS",
        "Principal",
        "__version__",
        "open_engine",
    ]
    assert all(getattr(nexus, name) is not None for name in nexus.__all__)


def test_the_documented_signatures() -> None:
    def leading(function: object, count: int) -> list[str]:
        return list(inspect.signature(function).parameters)[1 : count + 1]  # type: ignore[arg-type]

    assert leading(NexusFS.sandbox_create, 3) == ["name", "ttl_minutes", "template_id"]
    assert leading(NexusFS.sandbox_run, 4) == ["sandbox_id", "language", "code", "timeout"]
    assert inspect.signature(NexusFS.sandbox_run).parameters["timeout"].default == 30


def test_a_process_that_forgets_to_close_still_ends(tmp_path: Path) -> None:
    code = f"from nexus import NexusFS; NexusFS(data_dir={str(tmp_path)!r}, sandbox_provider='local')"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
