"""A sandbox's or a fleet's life laid out on one axis of time, to be drawn in a terminal or in a report.

Pure: a function of lives and of the moment at which somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nexus.domain.values import to_text
from nexus.engine.lives import Life, RunOutcome, Stretch

_SHORTEST = timedelta(milliseconds=1)
"""Even a single moment is drawn with some width."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A run where it began; `end` None while it runs."""

    execution_id: str
    language: str
    start: datetime
    end: datetime | None
    outcome: RunOutcome


@dataclass(frozen=True, slots=True)
class Line:
    """One sandbox: its stretches without gaps, and its runs, oldest first."""

    life: Life
    stretches: tuple[Stretch, ...]
    marks: tuple[Mark, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        life = self.life
        return {
            "sandbox_id": life.sandbox_id,
            "name": life.name,
            "user_id": life.user_id,
            "provider": life.provider,
            "stop_reason": None if life.stop_reason is None else life.stop_reason.value,
            "stretches": [
                {"state": one.state.value, "start": to_text(one.start), "end": _text(one.end)} for one in self.stretches
            ],
            "runs": [
                {
                    "execution_id": mark.execution_id,
                    "language": mark.language,
                    "start": to_text(mark.start),
                    "end": _text(mark.end),
                    "outcome": mark.outcome.value,
                }
                for mark in self.marks
            ],
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lines in the order in which the sandboxes began, on the axis from `begin` to `end`."""

    begin: datetime
    end: datetime
    lines: tuple[Line, ...]

    def place(self, moment: datetime | None) -> float:
        """Where a moment lies on the axis: 0 at its begin, 1 at its end, which is also where None (not yet) lies."""
        if moment is None:
            return 1.0
        return min(1.0, max(0.0, (moment - self.begin) / (self.end - self.begin)))


def timeline(lives: Iterable[Life], until: datetime) -> Timeline:
    """The axis begins with the first sandbox and ends with the last, or at `until` when one still lives then."""
    found = sorted(lives, key=lambda life: (life.start, life.sandbox_id))
    begin = min((life.start for life in found), default=until)
    # An operation may be recorded a little after the look, by a clock of its own: nothing lies outside the axis.
    ends = [max(life.end or until, life.stretches[-1].start) for life in found]
    end = max(ends, default=until)
    lines = (
        Line(
            life,
            tuple(life.stretches),
            tuple(
                Mark(run.execution_id, run.language, run.start, run.end, run.outcome)
                for run in sorted(life.runs.values(), key=lambda run: (run.start, run.execution_id))
            ),
        )
        for life in found
    )
    return Timeline(begin, max(end, begin + _SHORTEST), tuple(lines))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)
