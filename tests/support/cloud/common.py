"""What the loopback clouds share: the names of faults, a plan of them, and the fake machine behind a sandbox."""

from __future__ import annotations

import contextlib
import enum
import errno
import json
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


SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = {"bwrap": "bubblewrap", "nsenter": "util-linux"}
"""Programs that a machine is made with, and the Debian packages that bring them."""


class Machine:
    """A sandbox's machine: a home and a /tmp of its own, real processes, and the host's programs, read-only.

    It is a set of namespaces that live as long as their first process. Nothing of the host's files but /usr and /etc
    is in there, and nothing inside outlives it, nor the process that made it. The network is the host's. Thread-safe.
    """

    def __init__(
        self,
        parent: Path,
        env: Mapping[str, str] | None = None,
        copy_of: Path | None = None,
        guest_home: str = "/root",
    ) -> None:
        """Make a machine below `parent` with `env` in every process, empty or from what `snapshot` copied.

        `guest_home` is where its home is seen from inside; on the host it is `home`.
        """
        for program, package in NEEDED.items():
            if shutil.which(program) is None:
                raise FileNotFoundError(f"the loopback clouds need {program}: apt-get install {package}")
        self.folder = parent / f"machine-{uuid.uuid4().hex}"
        self.home = self.folder / "home"
        self.guest_home = guest_home
        self.env = dict(env or {})
        if copy_of is None:
            self.home.mkdir(parents=True)
            (self.folder / "tmp").mkdir()
        else:
            _copy(copy_of, self.folder)
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._dead = False
        self._keeper, self._pid = self._boot()
        self._namespace = Path(f"/proc/{self._pid}/ns/pid").stat().st_ino

    def _boot(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start what keeps the namespaces: it waits for the end of its stdin, which comes when this process ends."""
        system: list[str] = []
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            path = Path("/", name)
            if path.is_symlink():
                system += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                system += ["--ro-bind", str(path), str(path)]
        read_end, write_end = os.pipe()
        try:
            keeper = subprocess.Popen(
                [
                    *("bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--info-fd", str(write_end)),
                    *("--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", *system),
                    *("--proc", "/proc", "--dev", "/dev", "--bind", str(self.folder / "tmp"), "/tmp"),
                    *("--bind", str(self.home), self.guest_home, "--chdir", self.guest_home),
                    *("--", "sh", "-c", "echo up; exec cat"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[write_end],
            )
        finally:
            os.close(write_end)
        with os.fdopen(read_end, "rb") as answer:
            said = answer.read()
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"up\n":
            raise RuntimeError(f"bubblewrap could not make a machine (exit code {keeper.wait()})")
        return keeper, int(json.loads(said)["child-pid"])

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, stdin: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a command with pipes for its streams, in its home or in `cwd`, a path as seen from inside.

        What is returned stands for the command: it ends as the command ends, with its code or signal. To signal the
        command itself use `signal`. Raises `FileNotFoundError` for a program that is not there, and
        `ProcessLookupError` on a dead machine.
        """
        everything = {"PATH": SYSTEM_PATH, "HOME": self.guest_home, "LANG": "C.UTF-8"} | self.env | dict(env or {})
        if "/" not in argv[0] and shutil.which(argv[0], path=everything["PATH"]) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        with self._lock:
            if self._dead:
                raise ProcessLookupError("the machine is dead")
            # As an ordinary user bubblewrap has made a user namespace, which has to be entered first.
            user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
            child = subprocess.Popen(
                [
                    *("nsenter", "--target", str(self._pid), *user, "--mount", "--pid", "--ipc", "--uts"),
                    *(f"--wdns={cwd or self.guest_home}", "--", *argv),
                ],
                env=everything,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._children.append(child)
        return child

    def signal(self, child: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to a command that `start` started; fine when it has ended."""
        with contextlib.suppress(OSError):
            for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
                os.kill(int(pid), number)
            child.send_signal(signal.SIGCONT)

    def forget(self, child: subprocess.Popen[bytes]) -> None:
        """Release a child that was waited for."""
        with self._lock, contextlib.suppress(ValueError):
            self._children.remove(child)

    def processes(self) -> dict[int, str]:
        """What runs on it: host pids, with command lines."""
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (entry / "ns/pid").stat().st_ino != self._namespace:
                    continue
                status = (entry / "status").read_text()
                inner = int(status.partition("NSpid:")[2].split("\n")[0].split()[-1])
                if inner > 2 and "State:\tZ" not in status:  # 1 and 2 keep the namespaces
                    found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
            except (OSError, ValueError, IndexError):  # it ended while we looked
                continue
        return found

    def kill_all(self, timeout: float = 10.0) -> None:
        """Kill everything that runs on it; the machine lives on. `TimeoutError` when something cannot be killed."""
        deadline = time.monotonic() + timeout
        while alive := self.processes():
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes survive SIGKILL: {alive}")

    def snapshot(self, to: Path) -> None:
        """Copy the files as they are now; what only lives in processes is not in it."""
        _copy(self.folder, to)

    def destroy(self) -> None:
        """End it: no process, no file is left. Twice is fine."""
        with self._lock:
            if self._dead:
                return
            self._dead = True
            children, self._children = self._children, []
        # The kernel kills all that is in a PID namespace with its first process.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        for child in (*children, self._keeper):
            child.send_signal(signal.SIGCONT)  # nsenter stops with its child, and would not see it die
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _copy(source: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(to)], check=True)
