"""The worker: sweeps what is due, reconciles now and then, and lets batch read models catch up.

Any number of workers may run at once; none leads. The stream's version decides who carries something on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from nexus.domain.errors import NexusError
from nexus.domain.values import system_principal
from nexus.engine.recovery import Report
from nexus.engine.service import Engine

_log = logging.getLogger("nexus.worker")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds between rounds."""

    sweep: float = 10.0
    reconcile: float = 60.0


class Worker:
    """Runs until told to stop; a round that fails is logged and tried again at its next turn."""

    def __init__(
        self, engine: Engine, schedule: Schedule | None = None, on_report: Callable[[Report], None] | None = None
    ) -> None:
        self._engine = engine
        self._schedule = schedule or Schedule()
        self._on_report = on_report
        self._stop = threading.Event()

    def run_once(self) -> Report:
        """One sweep and one reconcile."""
        report = self._engine.reconcile(system_principal("worker"))
        self._tell(report)
        return report

    def run(self) -> None:
        """Sweep and reconcile by the schedule until `stop` is called; finishes what it has begun."""
        since_reconcile = self._schedule.reconcile
        while not self._stop.is_set():
            try:
                if since_reconcile >= self._schedule.reconcile:
                    since_reconcile = 0.0
                    self.run_once()
                else:
                    self._tell(self._engine.sweep())
            except NexusError as error:
                _log.warning("round failed: %s", error.message)
            self._stop.wait(self._schedule.sweep)
            since_reconcile += self._schedule.sweep

    def stop(self) -> None:
        """Drain: the round in progress is finished, the next is not begun. Safe in a signal handler."""
        self._stop.set()

    def _tell(self, report: Report) -> None:
        if self._on_report is not None:
            self._on_report(report)


class Background:
    """A worker in a daemon thread of this process: the facade's automatic clean-up."""

    def __init__(self, engine: Engine, sweep_seconds: float) -> None:
        self._worker = Worker(engine, Schedule(sweep=sweep_seconds, reconcile=sweep_seconds))
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin, once."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._worker.run, name="nexus-sweep", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        self._worker.stop()
        with self._lock:
            if self._thread is not None:
                self._thread.join(timeout=30)
