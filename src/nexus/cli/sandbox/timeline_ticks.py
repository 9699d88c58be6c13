"""Round moments on an axis of time, and how to write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_STEPS: Final = (
    *(0.001, 0.005, 0.01, 0.05, 0.1, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(60.0, 120.0, 300.0, 600.0, 900.0, 1800.0),
    *(3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0),
    *(86_400.0 * days for days in (1, 2, 7, 14, 28, 91, 364)),
)
"""Seconds between two ticks: what people count time in."""
_MOST: Final = 8
_DAY: Final = 86_400.0
_EPOCH: Final = datetime(2001, 1, 1, tzinfo=UTC)
"""A Monday: weeks begin there."""


@dataclass(frozen=True, slots=True)
class Tick:
    moment: datetime
    time: str
    """Of the day; empty where the ticks are days."""
    day: str
    """Of the first tick and of those that begin a day; else empty."""


def ticks(begin: datetime, end: datetime) -> list[Tick]:
    """At most eight round moments from `begin` to `end`; none where no round one lies between."""
    width = (end - begin).total_seconds()
    step = next((step for step in _STEPS if width / step <= _MOST - 1), _STEPS[-1] * max(1, width // _STEPS[-1]))
    number = -((_EPOCH - begin) // timedelta(seconds=step))
    found: list[Tick] = []
    while (moment := _EPOCH + number * timedelta(seconds=step)) <= end:
        if moment >= begin:
            day = f"{moment:%Y-%m-%d}"
            is_new = not found or f"{found[-1].moment:%Y-%m-%d}" != day
            found.append(Tick(moment, _time(moment, step), day if is_new else ""))
        number += 1
    return found


def _time(moment: datetime, step: float) -> str:
    if step >= _DAY:
        return ""
    if step >= 60:
        return f"{moment:%H:%M}"
    return f"{moment:%H:%M:%S}" if step >= 1 else f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
