"""The machine's monotonic clock, for durations and back-off."""

from __future__ import annotations

import time


class MonotonicClock:
    """Implements the `Clock` port."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
