"""`nexus sandbox list`: from the read models alone, because it is called again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.options import Whole, common, moment_option, pairs
from nexus.cli.session import Session, pass_session
from nexus.cli.times import since, until
from nexus.cli.watching import watch as watching

if TYPE_CHECKING:
    from nexus.projections.views import SandboxView

LIVE: Final = ("creating", "active", "paused")
_STATES: Final = (*LIVE, "stopped")
_PAGE: Final = 500


@click.command(name="list")
@click.option("--all", "everything", is_flag=True, help="The stopped ones too.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these; may be repeated.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Only with this label; may be repeated.")
@click.option("--name", help="Only of this name.")
@click.option("--provider", metavar="NAME", help="Only of this provider.")
@click.option("--limit", type=Whole("sandboxes", 1, 1000), metavar="N", help="At most so many; else all.")
@click.option("--cursor", metavar="TEXT", help="Where the page before ended.")
@click.option("--all-users", is_flag=True, help="Those of all users of the tenant; for admins.")
@click.option("--watch", is_flag=True, help="Show changes as they come.")
@moment_option
@common
@pass_session
def list_(
    session: Session,
    everything: bool,
    states: tuple[str, ...],
    labels: tuple[str, ...],
    name: str | None,
    provider: str | None,
    limit: int | None,
    cursor: str | None,
    all_users: bool,
    watch: bool,
    as_of: str | None,
) -> None:
    """List sandboxes, newest first: the live ones unless told otherwise; with --as-of, those of then.

    With --json: {"sandboxes": [...], "next_cursor": ...}; with --quiet: ids alone.
    """
    if everything and states:
        raise click.UsageError("Give --all or --state, not both.")
    question: dict[str, Any] = {
        "states": None if everything else (states or LIVE),
        "labels": pairs(labels, "label"),
        "name": name,
        "provider": provider,
        "all_users": all_users,
    }
    if as_of is not None:
        if watch or cursor is not None:
            raise click.UsageError("--as-of goes with neither --watch nor --cursor.")
        _show_past(session, as_of, question, limit)
        return
    if watch:
        if cursor is not None:
            raise click.UsageError("Give --watch or --cursor, not both.")
        watching(
            session,
            lambda: list(all_pages(session, **question))[:limit],
            lambda views: {"sandboxes": [view.to_dict(session.now()) for view in views]},
            lambda views: _show(session, views, all_users),
            lambda views: False,
        )
        return
    if limit is None and cursor is None:
        views, more = list(all_pages(session, **question)), None
    else:
        page = session.queries.page(session.principal, limit=limit or 100, cursor=cursor, **question)
        views, more = list(page.sandboxes), page.next_cursor
    if session.output.json:
        now = session.now()
        session.output.value({"sandboxes": [view.to_dict(now) for view in views], "next_cursor": more})
        return
    _show(session, views, all_users)
    if not views:
        session.output.hint("There are no such sandboxes. `nexus sandbox create NAME` makes one.")
    if more is not None:
        session.output.hint(f"There are more: --cursor {more}")


def _show_past(session: Session, as_of: str, question: dict[str, Any], limit: int | None) -> None:
    from nexus.engine.history import Moment

    moment = Moment.parse(as_of)
    views = session.history.fleet(session.principal, moment, **question)[:limit]
    then = moment.time or session.now()
    if session.output.json:
        session.output.value({"sandboxes": [view.to_dict(then) for view in views], "next_cursor": None})
    else:
        _show(session, views, question["all_users"], then)


def all_pages(session: Session, **question: Any) -> Iterator[SandboxView]:
    """Every sandbox that fits, page by page."""
    cursor: str | None = None
    while True:
        page = session.queries.page(session.principal, limit=_PAGE, cursor=cursor, **question)
        yield from page.sandboxes
        cursor = page.next_cursor
        if cursor is None:
            return


def state_of(view: SandboxView) -> str:
    """The state in words: with the reason of its end, or with what is going on."""
    if view.stop_reason is not None:
        return f"{view.status} ({view.stop_reason})"
    if view.pending is not None and view.pending.operation != "create":
        return f"{view.status} ({view.pending.operation} in progress)"
    return str(view.status)


def _show(session: Session, views: Sequence[SandboxView], users: bool, now: datetime | None = None) -> None:
    from nexus.cli.terminal import is_terminal

    output = session.output
    if output.quiet:
        for view in views:
            output.line(view.sandbox_id)
        return
    import sys

    short = is_terminal(sys.stdout)
    now = now or session.now()
    columns = ["ID", "NAME", "STATUS", "PROVIDER", "CREATED", "EXPIRES IN"]
    rows = [
        [
            view.sandbox_id[:15] if short else view.sandbox_id,
            view.name,
            state_of(view),
            view.provider,
            since(view.created_at, now),
            until(view.expires_at, now) if view.expires_at is not None and view.stopped_at is None else "",
        ]
        for view in views
    ]
    if users:
        columns.append("USER")
        for row, view in zip(rows, views, strict=True):
            row.append(view.user_id)
    output.table(columns, rows)
