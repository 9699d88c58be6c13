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


def descendants(spared: int = 0, kept: int = 0) -> list[int]:
    """Every living descendant of this process, from /proc, but for `spared` and what is below it, and `kept` alone."""
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
    return [pid for pid in found if pid != kept]


def kill_descendants(uid: int, spared: int = 0, kept: int = 0) -> None:
    """Kill and reap all below this process, where the user's code is `uid`; returns when none of it is alive.

    Left alive are `spared` with what is below it, and `kept` without.

    Everything of the user's is stopped for a moment, other runs' programs included: what stands still forks no more,
    and leaves the processor to this search, for which a hundred busy processes would otherwise leave a hundredth.
    """
    while _has_children(spared, kept):
        frozen = _signal_user(uid, signals.SIGSTOP)
        try:
            if not frozen:
                _stop_one_by_one(spared, kept)
            signal_all(descendants(spared, kept), signals.SIGKILL)
        finally:
            if frozen:
                _signal_user(uid, signals.SIGCONT)


def _has_children(spared: int, kept: int) -> bool:
    """Whether anything lives below this process; buries what does not. Orphans come to it, so its children tell."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return bool(descendants(spared, kept)) if spared or kept else True


def _signal_user(uid: int, number: int) -> bool:
    """Signal all processes of the user at once; False where this process has no right to.

    The kernel signals what has the sender's real or effective uid. The real one must not be root's, or the agent would
    be hit; nor the user's, or the user could hit back. So it is one that nobody has.
    """
    try:
        os.setresuid(uid + 1, uid, 0)
    except OSError:
        return False
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass
    finally:
        os.setresuid(0, 0, 0)
    return True


def _stop_one_by_one(spared: int, kept: int) -> None:
    """Programs can continue each other, so after some rounds that is enough."""
    stopped: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        new = [pid for pid in descendants(spared, kept) if pid not in stopped]
        if not new:
            return
        signal_all(new, signals.SIGSTOP)
        stopped.update(new)


def signal_all(pids: list[int], number: int) -> None:
    """Signal those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass
