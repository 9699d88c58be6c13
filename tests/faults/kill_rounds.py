"""One round of "kill -9, then one reconcile", and what must hold after it, for any store and any provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nexus.domain.values import Principal
from nexus.engine.service import Engine
from tests.support.victim import OWNER, Steps, carry_out, make_engine

ADMIN = Principal(user_id="operator", is_admin=True)
COMMANDS = ("create", "run", "pause", "resume", "stop")
MARK = "/tmp/mark"


def victim(folder: Path, kind: str, url: str, command: str, die_at: str = "") -> subprocess.CompletedProcess[str]:
    """Carry out the command in a process of its own, which dies at that step."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.victim", str(folder), kind, url, command, MARK, die_at],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def prepare(engine: Engine, command: str) -> str:
    """The sandbox that the command is about, and a bystander whose memory of a secret number must survive."""
    bystander = engine.create(OWNER, "bystander").sandbox_id
    if command != "create":
        engine.create(OWNER, "target")
    if command == "resume":
        engine.pause(OWNER, "target")
    return bystander


def steps_of(folder: Path, kind: str, url: str, command: str) -> list[str]:
    """Every step that the command passes when nobody kills it."""
    with make_engine(folder, kind, url) as engine:
        prepare(engine, command)
    done = victim(folder, kind, url, command)
    assert done.returncode == 0, done.stderr
    steps: list[str] = json.loads(done.stdout)
    with make_engine(folder, kind, url) as engine:
        clean_up(engine)
    return steps


def clean_up(engine: Engine) -> None:
    for view in engine.list(ADMIN, all_users=True, states=["creating", "active", "paused"]).sandboxes:
        engine.stop(ADMIN, view.sandbox_id)
    engine.reconcile(ADMIN)


Victim = Callable[[Path, str, str, str, str], int]
"""Carries out a command in a process of its own that dies at the step; its exit status, negative for a signal."""


def started(folder: Path, kind: str, url: str, command: str, die_at: str) -> int:
    """A new program."""
    died = victim(folder, kind, url, command, die_at)
    return died.returncode if died.returncode < 0 else 256


def forked(folder: Path, kind: str, url: str, command: str, die_at: str) -> int:
    """A copy of this process, which costs a hundredth."""
    pid = os.fork()
    if pid == 0:
        try:
            step = Steps(die_at)
            with make_engine(folder, kind, url, step) as engine:
                step.passed.clear()
                carry_out(engine, command, MARK)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_and_heal(folder: Path, kind: str, url: str, command: str, die_at: str, carry: Victim = started) -> None:
    """Kill the command's process at the step, reconcile once, and hold the world against the log."""
    with make_engine(folder, kind, url) as engine:
        bystander = prepare(engine, command)
        assert carry(folder, kind, url, command, die_at) == -signal.SIGKILL, f"{command} did not die at {die_at}"
        try:
            report = engine.reconcile(ADMIN)
            assert report.problems == []
            check(engine, kind, command, bystander)
        finally:
            clean_up(engine)


def check(engine: Engine, kind: str, command: str, bystander: str) -> None:
    page = engine.list(ADMIN, all_users=True)
    live = {view.sandbox_id: view.status for view in page.sandboxes if view.status != "stopped"}
    provider = engine.providers.get(kind)
    resources = {seen.sandbox_id: seen.condition for seen in provider.owned(engine.store.installation)}
    conditions = {"active": "running", "paused": "paused"}
    listed = ("active", "paused") if provider.capabilities.lists_paused else ("active",)
    assert resources == {key: conditions[status] for key, status in live.items() if status in listed}
    assert all(view.pending is None and view.open_executions == 0 for view in page.sandboxes)
    assert bystander in live
    assert engine.run(OWNER, bystander, language="bash", code="echo alive").exit_code == 0
    target = next((view for view in page.sandboxes if view.name == "target"), None)
    if command == "create":
        again = engine.create(OWNER, "target") if target is None or target.status == "stopped" else target
        assert engine.run(OWNER, again.sandbox_id, language="bash", code="echo works").exit_code == 0
        return
    assert target is not None
    if command == "stop":
        assert target.status in ("active", "stopped")
    elif command in ("pause", "resume"):
        assert target.status in ("active", "paused")
    if command == "run":
        at_most_once(engine, kind, target.sandbox_id)
    if target.status == "paused":
        engine.resume(OWNER, target.sandbox_id)
    if target.status != "stopped":
        assert engine.run(OWNER, target.sandbox_id, language="bash", code="echo works").exit_code == 0


def at_most_once(engine: Engine, kind: str, target: str) -> None:
    """The killed command's code left at most one mark, and its outcome is recorded in any case."""
    if kind == "fake":
        repeated: list[str] = engine.providers.get(kind).cloud.repeated()  # type: ignore[attr-defined]
        assert repeated == []
        return
    seen = engine.run(OWNER, target, language="bash", code=f"cat {MARK} 2>/dev/null || true")
    assert seen.stdout in ("", "ran\n")
