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
    """This machine's uptime, set by the server's time.

    Never ahead of the server: an answer counts as read when it came. So nothing is said to have happened after the
    server recorded it, and nothing expires early. It is behind by the way back of the quickest answer of late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment = datetime.min.replace(tzinfo=UTC)
        self._at = float("-inf")

    @staticmethod
    def ticks() -> float:
        """Seconds that go on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def set(self, moment: datetime) -> None:
        """The server gave this moment in an answer that came just now."""
        now = self.ticks()
        with self._lock:
            # A slow answer, such as the first one over a new connection, knows less than a quick one just before.
            if now - self._at > GOOD_FOR or moment > self._reckoned(now):
                self._moment, self._at = moment.astimezone(UTC), now

    def now(self, look: Callable[[], datetime]) -> datetime:
        """The server's time; `look` asks it, when the last answer is too old."""
        if self.ticks() - self._at > GOOD_FOR:
            self.set(look())
        with self._lock:
            return self._reckoned(self.ticks())

    def _reckoned(self, now: float) -> datetime:
        return self._moment + timedelta(seconds=now - self._at)
