"""Who this process is, in a form that another process can check: the holder of an operation.

A holder is `machine:boot:pid namespace:pid:start time`. Pids are reused and machines reboot, so none of these proves
anything alone. On another machine nothing is ever known, and the operation's deadline decides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nexus.domain import origin

UNKNOWN: Final = "unknown"
"""Stands for the id of a machine that has none: containers, minimal systems."""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Clock ticks after boot at which the process started; "" when there is no such process or it is a zombie."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] in "ZX" else fields[19]


class ProcessOrigin:
    """From where this process's events come, for those who read the log: `door@host name:pid`.

    A holder proves that a process is gone, and is for machines; this is for people, and proves nothing.
    """

    def __init__(self, door: str) -> None:
        self._door = door
        self._pid = -1
        self._text = ""

    def __call__(self) -> str:
        pid = os.getpid()
        if pid != self._pid:  # also after a fork
            self._text = origin.make(self._door, os.uname().nodename, pid)
            self._pid = pid
        return self._text


class ProcessLiveness:
    """Implements the `Liveness` port with /proc."""

    def __init__(self) -> None:
        self._boot = _read("/proc/sys/kernel/random/boot_id")
        self._machine = _read("/etc/machine-id") or UNKNOWN
        try:
            self._namespace = str(os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116 - not a file of ours
        except OSError:
            self._namespace = ""
        self._pid = -1
        self._me = ""

    @property
    def me(self) -> str:
        pid = os.getpid()
        if pid != self._pid:  # also after a fork
            self._me = ":".join((self._machine, self._boot, self._namespace, str(pid), _start_time(pid)))
            self._pid = pid
        return self._me

    def is_dead(self, holder: str) -> bool:
        try:
            machine, boot, namespace, pid, started = holder.split(":")
            number = int(pid)
        except ValueError:
            return False
        if not self._boot or not started:
            return False
        if boot == self._boot:  # the same running kernel, whatever the machine is called
            return namespace == self._namespace and _start_time(number) != started
        return machine == self._machine != UNKNOWN
