"""What the loopback E2B holds: sandboxes with machines, their deadlines, and the idempotency keys it has seen."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.cloud.common import Machine

GUEST_HOME = "/home/user"
ENVD_VERSION = "0.6.4"


@dataclass
class Process:
    """A command that envd was asked to start. `pid` is envd's name for it."""

    pid: int
    child: subprocess.Popen[bytes]
    config: dict[str, Any]
    user: str


@dataclass
class CloudSandbox:
    """One sandbox, running or paused. What is killed is removed from the world."""

    id: str
    template: str
    metadata: dict[str, str]
    env: dict[str, str]
    machine: Machine
    started_at: datetime
    end_at: datetime
    internet: bool
    on_timeout: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    paused: bool = False
    dead: bool = False
    """Set before its processes are killed: who follows one of them must not take that for the command's own end."""
    unreachable: bool = False
    """Its network is down: the proxy finds no open port, the control plane knows nothing of it."""
    in_transition: bool = False
    """A snapshot of it is being taken, or it is being moved: for now it cannot be changed."""
    processes: dict[int, Process] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(100))

    def start(self, config: dict[str, Any], *, user: str, stdin: bool) -> Process:
        command = [config["cmd"], *config.get("args", [])]
        child = self.machine.start(
            command, env={**self.env, **config.get("envs", {})}, cwd=config.get("cwd"), stdin=stdin
        )
        self.machine.forget(child)  # whoever follows it reads to the end and closes, also when the machine dies
        process = Process(next(self._numbers), child, config, user)
        self.processes[process.pid] = process
        return process

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to a command, which may not have entered its machine yet."""
        pid = process.child.pid
        with contextlib.suppress(FileNotFoundError):
            while process.child.poll() is None and not Path(f"/proc/{pid}/task/{pid}/children").read_text():
                time.sleep(0.001)
        self.machine.signal(process.child, number)

    def ended(self, process: Process) -> None:
        self.processes.pop(process.pid, None)
        for pipe in (process.child.stdin, process.child.stdout, process.child.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def freeze(self) -> None:
        """Stop all its processes, those included that appear meanwhile."""
        stopped: set[int] = set()
        while fresh := set(self.machine.processes()) - stopped:
            self._signal(fresh, signal.SIGSTOP)
            stopped |= fresh

    def thaw(self) -> None:
        self._signal(set(self.machine.processes()), signal.SIGCONT)
        self._wake()

    def _wake(self) -> None:
        """What stands for a command outside its machine stops with it, and would not see it go on, or die."""
        self._signal({process.child.pid for process in list(self.processes.values())}, signal.SIGCONT)

    def destroy(self) -> None:
        self.dead = True
        self.freeze()  # all at once, as machines die: who is left for a moment must not report the others' end
        self._signal(set(self.machine.processes()), signal.SIGKILL)
        self._wake()
        self.machine.destroy()

    def _signal(self, pids: set[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class KeyUse:
    """An idempotency key: what was asked with it, and which sandbox came of it."""

    body: Any
    sandbox_id: str = ""
    """Empty while the first request with it is being worked on."""


class World:
    """All state of one loopback E2B. `lock` guards it; nothing slow happens under it but making a machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.sandboxes: dict[str, CloudSandbox] = {}
        self.keys: dict[str, KeyUse] = {}
        self.clear()

    def clear(self) -> None:
        """End everything, forget every key, take back every setting."""
        for sandbox_id in list(self.sandboxes):
            self.kill(sandbox_id)
        self.keys.clear()
        self.honour_keys = True
        """False: the service forgets every key as soon as it has seen it."""
        self.max_timeout = 86_400
        self.page_size = 100

    def create(self, body: dict[str, Any]) -> CloudSandbox:
        now = datetime.now(UTC)
        sandbox = CloudSandbox(
            id=f"i{uuid.uuid4().hex[:20]}",
            template=body["templateID"],
            metadata=dict(body.get("metadata") or {}),
            env=dict(body.get("envVars") or {}),
            machine=Machine(self.folder, guest_home=GUEST_HOME),
            started_at=now,
            end_at=now + timedelta(seconds=body.get("timeout", 15)),
            internet=body.get("allow_internet_access", True),
            on_timeout="pause" if body.get("autoPause") else "kill",
        )
        with self.lock:
            self.sandboxes[sandbox.id] = sandbox
        return sandbox

    def get(self, sandbox_id: str) -> CloudSandbox | None:
        self.expire()
        with self.lock:
            return self.sandboxes.get(sandbox_id)

    def kill(self, sandbox_id: str) -> bool:
        with self.lock:
            sandbox = self.sandboxes.pop(sandbox_id, None)
        if sandbox is None:
            return False
        sandbox.destroy()
        return True

    def pause(self, sandbox: CloudSandbox) -> None:
        with self.lock:
            sandbox.paused = True
        sandbox.freeze()

    def resume(self, sandbox: CloudSandbox, timeout: int) -> None:
        sandbox.thaw()
        with self.lock:
            sandbox.paused = False
            sandbox.end_at = datetime.now(UTC) + timedelta(seconds=timeout)

    def expire(self) -> None:
        """End, or pause, what is past its deadline."""
        now = datetime.now(UTC)
        with self.lock:
            due = [s for s in self.sandboxes.values() if not s.paused and s.end_at <= now]
        for sandbox in due:
            if sandbox.on_timeout == "pause":
                self.pause(sandbox)
            else:
                self.kill(sandbox.id)
