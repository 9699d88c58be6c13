"""Durations as people read them. Points in time are shown relative to now, so no time zone can mislead."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """`0.42 s`, `37 s`, `9 min`, `3 h 20 min`, `2 d 4 h`: the two largest units, seconds only below ten minutes."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    left = int(seconds)
    words: list[str] = []
    if left >= 600:
        left -= left % 60
    for length, unit in _UNITS:
        if left >= length and len(words) < 2:
            words.append(f"{left // length} {unit}")
            left %= length
        elif words:
            break
    return " ".join(words)


def until(moment: datetime, now: datetime) -> str:
    """How long it is until then: `9 min 30 s`; `now` when it has come."""
    left = (moment - now).total_seconds()
    return duration(round(left)) if left >= 1 else "now"


def since(moment: datetime, now: datetime) -> str:
    """How long ago it was: `5 min ago`."""
    gone = (now - moment).total_seconds()
    return f"{duration(gone)} ago" if gone >= 1 else "just now"


def size(count: int) -> str:
    """`17 B`, `1.0 KiB`, `3.4 MiB`."""
    if count < 1024:
        return f"{count} B"
    for unit, name in ((1024, "KiB"), (1024**2, "MiB")):
        if count < unit * 1024:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1024**3:.1f} GiB"
