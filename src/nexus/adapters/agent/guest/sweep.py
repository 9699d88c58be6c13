"""Killing everything below a process where no PID namespace can do it (a container without the right to make one)."""

from __future__ import annotations

import os

from nexus.adapters.agent.guest.kernel import signals

_STOP_ROUNDS = 20


class Interrupted(BaseException):
    """The agent asked this run's init to end the run."""


def interrupt(*_: object) -> None:
    """Signal handler: once is enough."""
    signals.signal(signals.SIGTERM, signals.SIG_IGN)
    raise Interrupted


def descendants(spared: int = 0) -> list[int]:
    """Every living descendant of this process, from /proc, but for `spared` and what is below it."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/" + name + "/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z" and int(name) != spared:
            parents.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [child for parent in level for child in parents.get(parent, ())]
        found += level
    return found


def kill_descendants(spared: int = 0) -> None:
    """Kill and reap all below this process; returns when none of it is alive.

    Stopping comes first: a stopped process holds its place under the limit of processes and forks no more, so a fork
    bomb stands still while it is counted. Programs can continue each other, so after some rounds killing starts
    anyway.
    """
    stopped: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        new = [pid for pid in descendants(spared) if pid not in stopped]
        if not new:
            break
        _signal_all(new, signals.SIGSTOP)
        stopped.update(new)
    alive = True
    while alive:
        pids = descendants(spared)
        alive = bool(pids)
        _signal_all(pids, signals.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass
