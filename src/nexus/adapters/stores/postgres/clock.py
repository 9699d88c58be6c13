"""The database's clock, read without a question each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

GOOD_FOR: Final = 10.0
"""Seconds that one look at the server's clock is good for: what an ordinary clock drifts meanwhile is microseconds,
and a server that was replaced is noticed."""


class ServerClock:
    """This machine's uptime, set by the server's time. Wrong by half the time that the last look took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment = datetime.min.replace(tzinfo=UTC)
        self._at = float("-inf")

    @staticmethod
    def ticks() -> float:
        """Seconds that go on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def set(self, moment: datetime, asked: float) -> None:
        """The server gave this moment as the answer to a question asked at `asked`, which came just now."""
        with self._lock:
            self._moment, self._at = moment.astimezone(UTC), (asked + self.ticks()) / 2

    def now(self, look: Callable[[], datetime]) -> datetime:
        """The server's time; `look` asks it, when the last answer is too old."""
        now = self.ticks()
        if now - self._at > GOOD_FOR:
            asked = self.ticks()
            self.set(look(), asked)
            now = self.ticks()
        with self._lock:
            return self._moment + timedelta(seconds=now - self._at)
