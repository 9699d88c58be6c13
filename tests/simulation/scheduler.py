"""A seeded scheduler over greenlets: one task runs at a time, and every switch is the seed's decision.

Time is virtual. A task that sleeps wakes when nothing else can run, or when the seed lets time pass earlier.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

Seed = int | bytes
"""What decides everything in a schedule: a number, or a string of bytes that is read one by one."""


class Chance(random.Random):
    """Decides by a string of bytes, which can be shortened; what comes after its end is always the same."""

    def __init__(self, decisions: bytes) -> None:
        super().__init__(0)
        self._decisions = iter(decisions)

    def random(self) -> float:
        decision = next(self._decisions, None)
        return super().random() if decision is None else decision / 256

    def getrandbits(self, count: int, /) -> int:
        decision = next(self._decisions, None)
        return super().getrandbits(count) if decision is None else decision % (1 << count)


class Dead(BaseException):
    """Raised out of every port of a process that was killed, so that no handler of its can do anything more."""


@dataclass(eq=False)
class Process:
    """What is killed together: a worker or an API process."""

    name: str
    alive: bool = True


@dataclass(eq=False)
class Task:
    name: str
    process: Process
    thread: greenlet
    wake_at: float = 0.0
    done: bool = False


@dataclass
class Scheduler:
    """Runs tasks until all are done or the budget of switches is used up."""

    seed: Seed
    now: float = 0.0
    """Virtual seconds since the beginning."""
    switches: int = 0
    tasks: list[Task] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Chance(self.seed) if isinstance(self.seed, bytes) else random.Random(self.seed)
        self._main = getcurrent()
        self._current: Task | None = None

    def spawn(self, name: str, process: Process, work: Callable[[], Any]) -> Task:
        def body() -> None:
            try:
                work()
            except (Dead, GreenletExit):
                pass
            except Exception as error:
                self.errors.append(f"{name}: unexpected {type(error).__name__}: {error}")
                raise
            finally:
                task.done = True

        task = Task(name, process, greenlet(body, parent=self._main))
        self.tasks.append(task)
        return task

    @property
    def process(self) -> Process:
        """The process of the running task."""
        if self._current is None:
            raise RuntimeError("no task is running")
        return self._current.process

    def pause(self) -> None:
        """Let others run: every call of a port does this, before and after its effect."""
        if self._current is None:
            return
        self._require_alive()
        self._main.switch()
        self._require_alive()

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        if self._current is None:
            self.now += seconds
            return
        self._current.wake_at = self.now + max(seconds, 0.000001)
        self.pause()

    def run(self, switches: int) -> bool:
        """Switch between tasks; True when all of them are done."""
        for _ in range(switches):
            waiting = [task for task in self.tasks if not task.done and task.process.alive]
            if not waiting:
                return True
            ready = [task for task in waiting if task.wake_at <= self.now]
            if not ready or self.random.random() < 0.02:
                later = [task for task in waiting if task.wake_at > self.now]
                if later:
                    self.now = min(task.wake_at for task in later)
                    ready = [task for task in waiting if task.wake_at <= self.now]
            self._switch(self.random.choice(ready))
        return all(task.done or not task.process.alive for task in self.tasks)

    def kill(self, process: Process) -> None:
        """kill -9: its tasks never run again."""
        process.alive = False

    def close(self) -> None:
        """Unwind what was abandoned. No handler can do anything: every port of a dead process raises `Dead`."""
        for task in self.tasks:
            task.process.alive = False
        for task in self.tasks:
            if not task.done and task.thread:
                self._current = task
                task.thread.throw(GreenletExit)
        self._current = None

    def _switch(self, task: Task) -> None:
        self.switches += 1
        self._current = task
        try:
            task.thread.switch()
        finally:
            self._current = None

    def _require_alive(self) -> None:
        if self._current is not None and not self._current.process.alive:
            raise Dead
