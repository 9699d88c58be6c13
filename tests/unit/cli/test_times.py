"""Durations and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.cli.times import duration, since, size, until

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00 s"), (0.123, "0.12 s"), (9.99, "9.99 s"), (10, "10 s"), (59.9, "59 s"), (60, "1 min"),
        (61, "1 min 1 s"), (599, "9 min 59 s"), (600, "10 min"), (659, "10 min"), (3599, "59 min"), (3600, "1 h"),
        (3660, "1 h 1 min"), (86_399, "23 h 59 min"), (86_400, "1 d"), (90_000, "1 d 1 h"), (86_460, "1 d"),
        (30 * 86_400, "30 d"),
    ],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@given(st.floats(0, 1e9))
def test_every_duration_can_be_shown(seconds: float) -> None:
    words = duration(seconds).split()
    assert len(words) in (2, 4)


def test_moments() -> None:
    assert until(NOW + timedelta(minutes=10), NOW) == "10 min"
    assert until(NOW + timedelta(seconds=1799.99), NOW) == "30 min"
    assert until(NOW, NOW) == until(NOW - timedelta(days=1), NOW) == "now"
    assert since(NOW - timedelta(minutes=5), NOW) == "5 min ago"
    assert since(NOW, NOW) == since(NOW + timedelta(hours=1), NOW) == "just now"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2, "1.0 MiB"),
        (1024**3, "1.0 GiB"),
        (5 * 1024**4, "5120.0 GiB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown
