"""What the loopback clouds share: the names of faults, a plan of them, and the fake machine behind a sandbox."""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ALL = "*"
"""The operation name that stands for every operation of a cloud."""


class Fault(enum.StrEnum):
    """What a cloud can do to its caller. Each cloud says in its own words what it answers."""

    THROTTLED_ONCE = "throttled-once"
    """One refusal for being too fast (429, RESOURCE_EXHAUSTED), then well again."""
    THROTTLED = "throttled"
    """The same refusal until the plan is cleared."""
    UNAVAILABLE = "unavailable"
    """503 or UNAVAILABLE; nothing happens."""
    INTERNAL = "internal"
    """500 or INTERNAL; nothing happens, but the caller cannot know that."""
    UNAUTHENTICATED = "unauthenticated"
    """401 or UNAUTHENTICATED."""
    FORBIDDEN = "forbidden"
    """403 or PERMISSION_DENIED."""
    ANSWER_LOST = "answer-lost"
    """The operation takes effect; then the connection is reset instead of an answer."""
    SLOW = "slow"
    """The answer is held back until the plan is cleared. The operation does not take effect before that."""
    STREAM_CUT = "stream-cut"
    """The connection of a running command is reset; the sandbox and the command live on."""
    STREAM_CUT_DEAD = "stream-cut-dead"
    """The same, and from then on the sandbox cannot be reached, though nobody said that it is gone."""
    KILLED = "killed"
    """The sandbox is ended while a command runs in it."""


NO_SERVER = "no-server"
"""Not planned but done: `stop()` of a cloud closes its sockets. Listed so that fault tables have a name for it."""

VANISHED = "vanished"
"""Not planned but done: `vanish(sandbox_id)` of a cloud, as if it had been deleted behind our back."""


@dataclass(slots=True)
class _Planned:
    fault: Fault
    operation: str
    left: int | None
    """How many more times; None is until cleared."""


@dataclass(slots=True)
class FaultPlan:
    """The faults that a test has set. Thread-safe: a test sets them while the cloud's own thread asks."""

    hits: Counter[tuple[str, Fault]] = field(default_factory=Counter)
    """How often each fault struck, by (operation, fault), so that a test can prove that its fault was met."""
    _planned: list[_Planned] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cleared: threading.Event = field(default_factory=threading.Event)

    def set(self, fault: Fault, operation: str = ALL, *, times: int | None = None) -> None:
        """Let `fault` strike `operation`, the next `times` times (None: until cleared; the `once` faults: 1)."""
        left = 1 if fault is Fault.THROTTLED_ONCE and times is None else times
        with self._lock:
            self._cleared = threading.Event()
            self._planned.append(_Planned(fault, operation, left))

    def clear(self) -> None:
        """Well again: no more faults, and answers that were held back are given."""
        with self._lock:
            self._planned.clear()
            self._cleared.set()

    def take(self, operation: str, among: Iterable[Fault] = tuple(Fault)) -> Fault | None:
        """The fault that strikes this operation now, counted; None when there is none of those in `among`."""
        wanted = frozenset(among)
        with self._lock:
            for planned in self._planned:
                if planned.fault not in wanted or planned.operation not in (ALL, operation) or planned.left == 0:
                    continue
                if planned.left is not None:
                    planned.left -= 1
                self.hits[(operation, planned.fault)] += 1
                return planned.fault
        return None

    def wait_cleared(self, timeout: float) -> bool:
        """Hold an answer back: returns when the plan is cleared, or False after `timeout` seconds."""
        return self._cleared.wait(timeout)


MARK = "LOOPBACK_MACHINE"
"""Environment variable that every process of a machine carries: how its strays are found."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A sandbox's machine: a home folder of its own and real processes, all of which die with it.

    It is not isolated; it runs only what the tests bring. Thread-safe.
    """

    def __init__(self, parent: Path, env: Mapping[str, str] | None = None, copy_of: Path | None = None) -> None:
        """Make a machine below `parent`, with `env` in every process; its home starts as a copy of `copy_of`."""
        self.token = uuid.uuid4().hex
        self.home = parent / f"machine-{self.token}"
        self.env = dict(env or {})
        if copy_of is None:
            self.home.mkdir(parents=True)
        else:
            shutil.copytree(copy_of, self.home, symlinks=True)
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._dead = False

    @property
    def dead(self) -> bool:
        return self._dead

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, with pipes for its streams.

        Raises `FileNotFoundError` or `PermissionError` as `Popen` does, `ProcessLookupError` on a dead machine.
        """
        everything = {"PATH": SYSTEM_PATH, "HOME": str(self.home), "LANG": "C.UTF-8"}
        everything |= self.env | dict(env or {}) | {MARK: self.token}
        with self._lock:
            if self._dead:
                raise ProcessLookupError("the machine is dead")
            child = subprocess.Popen(
                list(argv),
                env=everything,
                cwd=cwd or self.home,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._children.append(child)
        return child

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        """Release a child that was waited for."""
        with self._lock, contextlib.suppress(ValueError):
            self._children.remove(child)

    def processes(self) -> set[int]:
        """Pids of all that lives on this machine, daemons that left their session included."""
        with self._lock:
            ours = {child.pid for child in self._children if child.returncode is None}
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state in "ZX":
                    ours.discard(pid)
                    continue
                parents[pid] = int(parent)
                if self._carries_mark(entry):
                    ours.add(pid)
            except (OSError, ValueError):  # it ended while we looked
                ours.discard(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in ours and pid not in ours}
            ours |= more
            grown = bool(more)
        return ours

    def _carries_mark(self, entry: Path) -> bool:
        if f"{MARK}={self.token}".encode() in (entry / "environ").read_bytes().split(b"\0"):
            return True
        # A program that cleared its environment still sits in a folder of this machine.
        return (entry / "cwd").readlink().is_relative_to(self.home)

    def kill_all(self, timeout: float = 10.0) -> None:
        """Kill everything on it; `TimeoutError` when something still lives after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while alive := self.processes():
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {sorted(alive)} survive SIGKILL")
        self._reap()

    def _reap(self) -> None:
        with self._lock:
            children = list(self._children)
        for child in children:
            child.poll()

    def snapshot(self, to: Path) -> None:
        """Copy the files as they are now; what only lives in processes is not in it."""
        shutil.copytree(self.home, to, symlinks=True)

    def destroy(self) -> None:
        """End it: no process, no file is left. Twice is fine."""
        with self._lock:
            self._dead = True
        self.kill_all()
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        shutil.rmtree(self.home, ignore_errors=True)
