"""Signals to a sandbox's processes from the host, never to a stranger that got a pid of theirs.

The agent is PID 1 of the sandbox's PID namespace: killing it kills all there is, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import signal
import time
from pathlib import Path

from nexus.adapters.providers.local.folder import Record

_PROC = Path("/proc")
_STOP_SECONDS = 5.0
_NOTICE_SECONDS = 2.0


@functools.cache
def boot_id() -> str:
    """Of this boot of the host."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; -1 when there is none."""
    try:
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def kill_agent(record: Record) -> bool:
    """SIGKILL the recorded agent, if it still is that process, and wait for bubblewrap to notice; whether it was."""
    with contextlib.ExitStack() as stack:
        agent = _handle(record.pid, stack)
        if agent is None or not is_agent(record):  # checked after the handle was taken: it can no longer become another
            return False
        parent = _handle(_bubblewrap_of(record.pid), stack)
        try:
            signal.pidfd_send_signal(agent, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if parent is not None:
            select.select([parent], [], [], _NOTICE_SECONDS)
    return True


def _handle(pid: int, stack: contextlib.ExitStack) -> int | None:
    if pid <= 1:
        return None
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    stack.callback(os.close, handle)
    return handle


def _bubblewrap_of(pid: int) -> int:
    """The process's parent if that is bubblewrap and not whoever took the orphan in; otherwise 0."""
    try:
        parent = int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        return parent if (_PROC / str(parent) / "comm").read_text() == "bwrap\n" else 0
    except OSError:
        return 0


def kill_started_for(log: Path) -> None:
    """SIGKILL what was started for a sandbox and is not inside it: the environment of its programs names its log."""
    mark = os.fsencode(f"LOG={log}")
    for entry in os.listdir(_PROC):  # noqa: PTH208
        if entry.isdigit():
            try:
                if mark in (_PROC / entry / "environ").read_bytes().split(b"\0"):
                    _signal(int(entry), signal.SIGKILL)
            except OSError:
                continue


def is_agent(record: Record) -> bool:
    """The pid still is the process that was recorded."""
    return (
        record.boot == boot_id()
        and start_time(record.pid) == record.started
        and namespace(record.pid) in (record.namespace, None)
    )


def namespace(pid: int) -> int | None:
    """Inode of the process's PID namespace; None when it refuses to be looked into."""
    try:
        match = re.search(r"\d+", str((_PROC / str(pid) / "ns/pid").readlink()))
    except OSError:
        return None
    return int(match[0]) if match else None


def stop_all(record: Record) -> bool:
    """SIGSTOP the agent and everything below it, again and again until none runs; whether that was achieved."""
    end = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < end:
        if not is_agent(record):
            return False
        running = [pid for pid, state in _family(record.pid) if state not in "TtZX"]
        if not running:
            return True
        for pid in running:
            _signal(pid, signal.SIGSTOP)
        time.sleep(0.001)
    return False


def continue_all(record: Record) -> None:
    """SIGCONT to all of them, the agent last: when it looks around, its programs run."""
    if is_agent(record):
        for pid, _ in reversed(_family(record.pid)):
            _signal(pid, signal.SIGCONT)


def is_stopped(record: Record) -> bool:
    """The agent is stopped by a signal."""
    return is_agent(record) and _state(record.pid) in ("T", "t")


def _family(root: int) -> list[tuple[int, str]]:
    """(pid, state) of a process and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208
        if entry.isdigit():
            try:
                fields = (_PROC / entry / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            states[int(entry)] = fields[0].decode()
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = []
    level = [root] if root in states else []
    while level:
        found += [(pid, states[pid]) for pid in level]
        level = [child for pid in level for child in children.get(pid, ())]
    return found


def _state(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
