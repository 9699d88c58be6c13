"""How a benchmark measures: ours and theirs in turn, pair by pair, so that a busy machine slows both alike.

A measured call may return a function: it is called after the clock has stopped, to clean up what the call made.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal, NotRequired, TypedDict

Clean = Callable[[], object]
Call = Callable[[], object]
Kind = Literal["times as long", "times as fast", "ms more", "ms", "wrong"]


class Row(TypedDict):
    """One line of the table and of `bench-results/latest.json`. Times are medians in milliseconds."""

    name: str
    ours_ms: float
    theirs_ms: float | None
    ratio: float | None
    """Median of the pairs' ratios (ours / theirs); for "times as fast" it is theirs / ours."""
    spread: tuple[float, float]
    """10th and 90th percentile of what the bar is about: the pairs' ratios, differences, or our times."""
    n: int
    bar: float | None
    ok: bool
    kind: NotRequired[Kind]
    """What the bar is about; "times as long" when absent. Only "times as fast" has to be at least its bar."""
    figure: NotRequired[float]
    """The median of what the bar is about; the ratio when absent."""
    note: NotRequired[str]


def compare(name: str, ours: Call, theirs: Call, n: int, bar: float | None = None, *, warm_up: int = 2) -> Row:
    """Measure `n` pairs; ours may take at most `bar` times as long as theirs."""
    return _pairs("times as long", name, ours, theirs, n, bar, warm_up)


def compare_speed(name: str, ours: Call, theirs: Call, n: int, bar: float | None = None, *, warm_up: int = 2) -> Row:
    """Measure `n` pairs; ours has to be at least `bar` times as fast as theirs (0.8: it may be a fifth slower)."""
    return _pairs("times as fast", name, ours, theirs, n, bar, warm_up)


def compare_added(name: str, ours: Call, theirs: Call, n: int, bar: float | None = None, *, warm_up: int = 2) -> Row:
    """Measure `n` pairs; ours may take at most `bar` milliseconds more than theirs."""
    return _pairs("ms more", name, ours, theirs, n, bar, warm_up)


def alone(name: str, ours: Call, n: int, bar: float | None = None, *, warm_up: int = 2) -> Row:
    """Measure `n` calls where there is nothing to compare with; the median may be at most `bar` milliseconds."""
    for _ in range(warm_up):
        timed(ours)
    times = [timed(ours) for _ in range(n)]
    median = statistics.median(times)
    return Row(
        name=name,
        ours_ms=median,
        theirs_ms=None,
        ratio=None,
        spread=_spread(times),
        n=n,
        bar=bar,
        ok=bar is None or median <= bar,
        kind="ms",
        figure=median,
    )


def percentile(name: str, ours: Sequence[float], percent: int, bar: float | None = None) -> Row:
    """The row of milliseconds that were measured elsewhere; the bar is about this percentile."""
    figure = statistics.quantiles(ours, n=100, method="inclusive")[percent - 1]
    return Row(
        name=name,
        ours_ms=statistics.median(ours),
        theirs_ms=None,
        ratio=None,
        spread=_spread(list(ours)),
        n=len(ours),
        bar=bar,
        ok=bar is None or figure <= bar,
        kind="ms",
        figure=figure,
    )


def none_wrong(name: str, wrong: int, n: int, took_ms: float) -> Row:
    """The row of a claim that holds for each of `n` things, or not at all."""
    return Row(
        name=name,
        ours_ms=took_ms,
        theirs_ms=None,
        ratio=None,
        spread=(wrong, wrong),
        n=n,
        bar=0.0,
        ok=wrong == 0,
        kind="wrong",
        figure=float(wrong),
    )


def timed(call: Call) -> float:
    """Milliseconds that the call takes; what it returns to clean up runs outside of them."""
    begin = time.perf_counter_ns()
    clean = call()
    elapsed = time.perf_counter_ns() - begin
    if callable(clean):
        clean()
    return elapsed / 1e6


def _pairs(kind: Kind, name: str, ours: Call, theirs: Call, n: int, bar: float | None, warm_up: int) -> Row:
    for _ in range(warm_up):
        timed(ours)
        timed(theirs)
    pairs: list[tuple[float, float]] = []
    for turn in range(n):
        # Whoever comes second finds warmer caches, so the order changes from pair to pair.
        if turn % 2:
            second, first = timed(theirs), timed(ours)
            pairs.append((first, second))
        else:
            pairs.append((timed(ours), timed(theirs)))
    return summary(kind, name, pairs, bar)


def summary(kind: Kind, name: str, pairs: Sequence[tuple[float, float]], bar: float | None = None) -> Row:
    """The row of pairs (our milliseconds, theirs) that were measured elsewhere."""
    figures = [_figure(kind, mine, other) for mine, other in pairs]
    median = statistics.median(figures)
    ratio = median if kind != "ms more" else statistics.median(mine / other for mine, other in pairs)
    return Row(
        name=name,
        ours_ms=statistics.median(mine for mine, _ in pairs),
        theirs_ms=statistics.median(other for _, other in pairs),
        ratio=ratio,
        spread=_spread(figures),
        n=len(pairs),
        bar=bar,
        ok=bar is None or (median >= bar if kind == "times as fast" else median <= bar),
        kind=kind,
        figure=median,
    )


def _figure(kind: Kind, mine: float, other: float) -> float:
    if kind == "ms more":
        return mine - other
    return other / mine if kind == "times as fast" else mine / other


def _spread(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]
