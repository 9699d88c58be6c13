"""Children that append to a store and say so; none is left behind."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import pytest

Say = Callable[[str], object]

may_fork = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
"""Forking beside threads is what the tests are about; a newer Python warns of it."""


@dataclass
class Child:
    pid: int
    said: IO[str]

    def lines(self) -> Iterator[str]:
        """What it says, line by line, to its end; a line that a kill cut short is left out."""
        return (line.rstrip("\n") for line in self.said if line.endswith("\n"))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code


@contextmanager
def children(count: int, act: Callable[[int, Say], object]) -> Iterator[list[Child]]:
    """Children that all call `act(number, say)` at the same moment: when this is entered."""
    gate, opener = os.pipe()
    started: list[Child] = []
    try:
        for number in range(count):
            started.append(_start(number, act, gate, opener))
        os.close(opener)
        opener = -1
        yield started
    finally:
        os.close(gate)
        if opener >= 0:
            os.close(opener)
        for child in started:
            child.said.close()
            if child.pid:
                child.kill()
                child.exit_code()


def _start(number: int, act: Callable[[int, Say], object], gate: int, opener: int) -> Child:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, os.fdopen(reader, encoding="utf-8"))
    code = 1
    try:
        os.close(opener)
        os.close(reader)
        os.read(gate, 1)  # returns once the parent has closed the other end
        act(number, lambda line: os.write(writer, f"{line}\n".encode()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def in_child(act: Callable[[], object]) -> int:
    """Lets one child act, and returns its exit code."""
    with children(1, lambda _number, _say: act()) as (child,):
        return child.exit_code()
