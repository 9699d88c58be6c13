"""`--since` and `--until`: a period of time, from one point in it up to another."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from nexus.domain.validation import shown

F = TypeVar("F", bound=Callable[..., Any])


class PointInTime(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """An ISO 8601 time that says its offset: without one it would be another time for everybody who reads it."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            time: datetime | None = datetime.fromisoformat(value)
        except ValueError:
            time = None
        # The first and the last year leave no room for the offset.
        if time is None or time.tzinfo is None or not 1 < time.year < 9999:
            self.fail(f"{shown(value)} is not a time with an offset, such as 2026-11-23T10:42:00Z.", param, ctx)
        return time.astimezone(UTC)


def period_options(command: F) -> F:
    """`since` and `until`, each a `datetime` in UTC or None."""
    since = click.option("--since", type=PointInTime(), metavar="TIME", help="From then on.")
    until = click.option("--until", type=PointInTime(), metavar="TIME", help="Up to then, which is outside.")
    return since(until(command))


def check_period(since: datetime | None, until: datetime | None) -> None:
    """Raises `UsageError` for a period that ends before it begins: an empty answer would look like a true one."""
    if since is not None and until is not None and until < since:
        raise click.UsageError("--until is before --since.")
