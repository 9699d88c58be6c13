"""The fake cloud's time: real, or virtual for simulations."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class CloudClock(Protocol):
    """What the fake cloud asks of time."""

    slice: float
    """Longest single sleep in seconds: how often a waiting run looks whether it was cancelled."""

    def now(self) -> datetime:
        """Aware, UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """Real time."""

    slice = 0.01

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class VirtualClock:
    """Time that passes only when told to, or, with `auto`, when somebody sleeps.

    `auto=True` suits single-threaded simulations: a behaviour that waits an hour returns at once and the clock stands
    an hour later. `auto=False` suits threads: sleepers wait until another thread calls `advance`.
    """

    def __init__(self, start: datetime | None = None, *, auto: bool = True) -> None:
        self._now = start or datetime(2030, 1, 1, tzinfo=UTC)
        self._auto = auto
        self._moved = threading.Condition()
        self.slice = float("inf") if auto else 0.01

    def now(self) -> datetime:
        with self._moved:
            return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; a negative number sets the clock back, as a bad NTP server would."""
        with self._moved:
            self._now += timedelta(seconds=seconds)
            self._moved.notify_all()

    def sleep(self, seconds: float) -> None:
        if self._auto:
            self.advance(max(0.0, seconds))
            return
        with self._moved:
            self._moved.wait(timeout=0.01)
