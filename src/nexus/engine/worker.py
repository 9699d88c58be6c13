"""The worker: sweeps what is due, reconciles now and then, seals the log and lets the read models follow it.

Any number of workers may run at once; none leads. The stream's version decides who carries something on.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from nexus.domain.errors import NexusError
from nexus.domain.values import system_principal
from nexus.engine.audit.sealer import Sealer
from nexus.engine.following import Following
from nexus.engine.recovery import Report
from nexus.engine.service import Engine
from nexus.projections.catalog import FOLLOWING, FollowingProjection
from nexus.projections.projector import catch_up

_log = logging.getLogger("nexus.worker")

_POOL_SECONDS: Final = 5.0
_EARLY: Final = 0.9
"""A shared round counts as done for this part of its period, so that no worker's clock makes it come late."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds between rounds, and how many sandboxes a sweep settles at once."""

    sweep: float = 10.0
    reconcile: float = 60.0
    pool: float = _POOL_SECONDS
    width: int = 4


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that has to be done every so many seconds: by every worker, or (`shared`) by any one of them."""

    name: str
    seconds: float
    act: Callable[[], object]
    shared: bool = False


class Worker:
    """Runs until told to stop; a round that fails is logged and tried again at its next turn."""

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule | None = None,
        on_report: Callable[[Report], None] | None = None,
        *,
        chores: Sequence[Chore] = (),
        following: Sequence[FollowingProjection] = FOLLOWING,
    ) -> None:
        """`on_report` is told of each sweep and each reconcile. `chores` are done beside them.

        `following` are the read models that are to follow the log.
        """
        self._engine = engine
        self._schedule = schedule or Schedule()
        self._on_report = on_report
        self._following = tuple(following)
        self._telling = threading.Lock()
        self._stop = threading.Event()
        self._chores = (
            Chore("sweep", self._schedule.sweep, self.sweep),
            Chore("reconcile", self._schedule.reconcile, self._reconcile, shared=True),
            *self._of_the_pool(),
            Chore("seal", self._schedule.sweep, Sealer(engine.store).catch_up),
            *chores,
        )

    def _of_the_pool(self) -> list[Chore]:
        """Who has no pool of its own to keep must not take the turn of those who have."""
        if self._engine.pool.plan is None:
            return []
        return [Chore("pool", self._schedule.pool, self._tend, shared=True)]

    def run_once(self) -> Report:
        """One sweep, one reconcile, the warm pool, the read models and the audit seals at the end of the log."""
        report = self._engine.reconcile(system_principal("worker"))
        if self._engine.pool.plan is not None:
            self._engine.pool.tend(report)
        self._tell(report)
        Sealer(self._engine.store).catch_up()
        for projection in self._following:
            catch_up(self._engine.store, projection)
        return report

    def run(self) -> None:
        """Work by the schedule until `stop` is called; finishes what it has begun.

        Each chore has a thread of its own, so that a slow provider cannot keep anything else from its time.
        """
        jobs: list[tuple[str, Callable[[], None]]] = []
        for chore in self._chores:
            jobs.append((chore.name, partial(self._repeat, chore)))
        for projection in self._following:
            following = Following(self._engine.store, projection, self._stop)
            jobs.append((f"follow-{projection.name}", following.run))
        threads = [threading.Thread(target=job, name=f"nexus-{name}") for name, job in jobs]
        for thread in threads:
            thread.start()
        try:
            # A signal's handler runs in this thread, which therefore never holds the lock inside `stop`'s event.
            for thread in threads:
                thread.join()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """Drain: what is in progress is finished, nothing new is begun. Safe in a signal handler."""
        self._stop.set()

    def sweep(self) -> Report:
        """Settle what is due, several sandboxes at once, in an order that no other worker has."""
        report = Report()
        tried: set[str] = set()
        recovery, width = self._engine.recovery, self._schedule.width
        with ThreadPoolExecutor(width, thread_name_prefix="nexus-settle") as pool:
            while not self._stop.is_set():
                # Asked anew for each handful: what other workers have settled meanwhile is left out.
                due = [sandbox_id for sandbox_id in recovery.due() if sandbox_id not in tried]
                if not due:
                    break
                some = random.sample(due, min(len(due), 8 * width))
                tried.update(some)
                for done in [pool.submit(recovery.look_at, sandbox_id, report) for sandbox_id in some]:
                    done.result()
        self._tell(report)
        return report

    def _reconcile(self) -> Report:
        report = self._engine.reconcile(system_principal("worker"))
        self._tell(report)
        return report

    def _tend(self) -> Report:
        report = self._engine.pool.tend(stop=self._stop.is_set)
        self._tell(report)
        return report

    def _tell(self, report: Report) -> None:
        if self._on_report is not None:
            with self._telling:
                self._on_report(report)

    # --- the schedule --------------------------------------------------------------------------------------------
    def _repeat(self, chore: Chore) -> None:
        while not self._stop.is_set():
            try:
                if not chore.shared or self._takes_turn(chore):
                    chore.act()
            except NexusError as error:
                _log.warning("%s failed: %s", chore.name, error.message)
            except Exception:  # noqa: BLE001 - whatever it is, the other chores and the next round go on
                _log.exception("%s failed", chore.name)
            # Workers that were started together drift apart; one that shares looks more often than it acts, so that
            # it notices soon when the one that acted last is gone.
            self._stop.wait(chore.seconds * random.uniform(0.8, 1.0) * (0.25 if chore.shared else 1.0))

    def _takes_turn(self, chore: Chore) -> bool:
        """Whether nobody has begun this round for a period. Kept like a position, which moves for one worker only."""
        views, key = self._engine.store.views, f"turn:{chore.name}"
        now = int(self._engine.store.now().timestamp())
        last = views.position(key)
        if last is not None and 0 <= now - last < chore.seconds * _EARLY:
            return False
        return views.advance(key, last, now, ())


class Background:
    """A worker in daemon threads of this process: the facade's automatic clean-up, and its warm pool."""

    def __init__(self, engine: Engine, sweep_seconds: float) -> None:
        self._engine = engine
        self._seconds = sweep_seconds
        self._stop = threading.Event()
        self._lack = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to clean up, once."""
        self._begin("sweep", self._sweep)

    def keep_pool(self) -> None:
        """Begin to keep the engine's warm pool, if it has one to keep; later calls say that something was taken."""
        if self._engine.pool.plan is not None:
            self._lack.set()
            self._begin("pool", self._fill)

    def _begin(self, name: str, act: Callable[[], None]) -> None:
        with self._lock:
            if name not in self._threads and not self._stop.is_set():
                self._threads[name] = threading.Thread(target=act, name=f"nexus-{name}", daemon=True)
                self._threads[name].start()

    def _sweep(self) -> None:
        while not self._stop.is_set():
            try:
                self._engine.reconcile(system_principal("worker"))
            except NexusError as error:
                _log.warning("clean-up failed: %s", error.message)
            self._stop.wait(self._seconds)

    def _fill(self) -> None:
        while not self._stop.is_set():
            self._lack.clear()
            try:
                report = self._engine.pool.tend(stop=self._stop.is_set)
                for problem in report.problems:
                    _log.warning("%s", problem)
            except NexusError as error:
                _log.warning("the warm pool could not be filled: %s", error.message)
            self._lack.wait(_POOL_SECONDS)

    def stop(self) -> None:
        """Let the round in progress end, at most half a minute."""
        self._stop.set()
        self._lack.set()
        with self._lock:
            for thread in self._threads.values():
                thread.join(timeout=30)
