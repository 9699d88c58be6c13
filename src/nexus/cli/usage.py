"""`nexus usage`: how long, how often, with what outcome, and at what estimated cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from nexus.cli.options import common, moment_option
from nexus.cli.period import check_period, period_options
from nexus.cli.session import Session, pass_session
from nexus.cli.times import duration
from nexus.domain.values import to_text

if TYPE_CHECKING:
    from nexus.engine.usage import Usage


@click.command()
@click.option(
    "--by",
    multiple=True,
    default=["provider"],
    metavar="WHAT",
    help="provider, user, day (of UTC), sandbox, or label:KEY; may be repeated, as in --by user --by day.  [provider]",
)
@period_options
@moment_option
@click.option("--all-users", is_flag=True, help="Those of all users of the tenant; for admins.")
@common
@pass_session
def usage(
    session: Session,
    by: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    as_of: str | None,
    all_users: bool,
) -> None:
    """Show active and paused time, runs and their outcomes, and the estimated cost. Straight from the log.

    Prices per active hour are your own, in the settings file: [prices], then lines such as e2b = 0.10; those of a
    paused hour, where it costs anything, under [paused_prices]. A provider without a price costs nothing that is known,
    and is named. --as-of tells what this would have told then.
    """
    from nexus.engine.eventlog import EventLog
    from nexus.engine.history import NOW, Moment
    from nexus.engine.usage import report as reported

    check_period(since, until)
    output, store = session.output, session.store
    prices, paused = session.settings.prices, session.settings.paused_prices
    moment = Moment.parse(as_of) if as_of is not None else NOW
    with output.progress("Counting"):
        report = reported(
            EventLog(store, session.queries),
            store,
            session.principal,
            by=by[0] if len(by) == 1 else by,
            since=since,
            until=until,
            moment=moment,
            all_users=all_users,
        )
    if output.json:
        output.value(
            {
                "by": by[0] if len(by) == 1 else list(by),
                "since": None if since is None else to_text(since),
                "until": None if until is None else to_text(until),
                "usage": [{"key": key, **group.to_dict(prices, paused)} for key, group in report.groups.items()],
                "total": report.total.to_dict(prices, paused),
                "unreadable": list(report.unreadable),
            }
        )
        return
    rows = [
        [*(part or "" for part in (key if isinstance(key, tuple) else (key,))), *_row(group, prices, paused)]
        for key, group in report.groups.items()
    ]
    if len(rows) > 1:
        rows.append(["total", *[""] * (len(by) - 1), *_row(report.total, prices, paused)])
    columns = ["SANDBOXES", "ACTIVE", "PAUSED", "RUNS", "OK", "FAILED", "TIMED OUT", "LOST", "RUNNING", "COST"]
    output.table([*(each.upper() for each in by), *columns], rows)
    unpriced = report.total.unpriced(prices)
    if not rows:
        output.hint("There was nothing in that time.")
    if unpriced:
        output.hint(f"Without a price: {', '.join(unpriced)}. Set one in the settings file, under [prices].")
    if report.unreadable:
        output.warn(f"{len(report.unreadable)} sandboxes have events that this version cannot read; see --json.")


def _row(group: Usage, prices: Mapping[str, float], paused: Mapping[str, float]) -> list[str]:
    cost = group.cost(prices, paused)
    return [
        str(len(group.sandboxes)),
        duration(group.active_seconds),
        duration(group.paused_seconds),
        str(group.runs),
        *(str(count) for count in group.outcomes.values()),
        "" if cost is None else f"{cost:.4f}{' +' if group.unpriced(prices) else ''}",
    ]
