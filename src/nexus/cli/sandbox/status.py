"""`nexus sandbox status`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from nexus.cli.options import common, moment_option, sandbox_argument
from nexus.cli.sandbox.listing import state_of
from nexus.cli.session import Session, pass_session
from nexus.cli.times import duration, since, until
from nexus.cli.watching import watch as watching
from nexus.domain.values import SandboxState

if TYPE_CHECKING:
    from nexus.projections.views import SandboxView


@click.command()
@sandbox_argument
@click.option("--verify", is_flag=True, help="Look at the resource itself, too, and record what is found.")
@click.option("--watch", is_flag=True, help="Show changes as they come, until it is stopped.")
@moment_option
@common
@pass_session
def status(session: Session, sandbox: str, verify: bool, watch: bool, as_of: str | None) -> None:
    """Show one sandbox: its state, times, limits, labels, and what the provider could not enforce.

    With --as-of: as it was then, straight from the log. Ages are counted from then, too, where a time is given.
    """
    if as_of is not None:
        if verify or watch:
            raise click.UsageError("Give --as-of alone: the past does not change and cannot be verified.")
        _show_past(session, sandbox, as_of)
        return
    if verify:
        with session.output.progress("Verifying"):
            view = session.engine.verify(session.principal, sandbox)
    else:
        view = session.queries.by_reference(sandbox, session.principal)
    if watch:
        watching(
            session,
            # By its id from here on: a name can pass to another sandbox.
            lambda: session.queries.by_reference(view.sandbox_id, session.principal),
            lambda seen: seen.details(session.now()),
            lambda seen: _show(session, seen),
            lambda seen: seen.status is SandboxState.STOPPED,
        )
    elif session.output.json:
        session.output.value(view.details(session.now()))
    else:
        _show(session, view)


def _show_past(session: Session, sandbox: str, as_of: str) -> None:
    from nexus.engine.history import Moment

    moment = Moment.parse(as_of)
    view = session.history.status(session.principal, sandbox, moment)
    then = moment.time or session.now()
    if session.output.json:
        session.output.value(view.details(then))
    else:
        _show(session, view, then)


def _show(session: Session, view: SandboxView, now: datetime | None = None) -> None:
    if session.output.quiet:
        session.output.line(str(view.status))
        return
    now = now or session.now()
    limits = ", ".join(f"{name} {value}" for name, value in view.limits.items() if value is not None)
    session.output.fields(
        [
            ("Sandbox", view.sandbox_id),
            ("Name", view.name),
            ("Status", state_of(view)),
            ("Provider", view.provider),
            ("Template", view.template_id or ""),
            ("Owner", f"{view.user_id} (tenant {view.tenant_id})"),
            ("Agent", view.agent_id or ""),
            ("Created", since(view.created_at, now)),
            ("Last active", since(view.last_active_at, now) if view.last_active_at else ""),
            ("Uptime", duration(view.uptime(now))),
            ("Expires in", until(view.expires_at, now) if view.expires_at and not view.stopped_at else ""),
            ("Time left", duration(view.remaining_seconds) if view.remaining_seconds is not None else ""),
            ("Stopped", since(view.stopped_at, now) if view.stopped_at else ""),
            ("Time to live", duration(view.ttl_seconds)),
            ("Network", view.network),
            ("Limits", limits),
            ("Labels", ", ".join(f"{name}={value}" for name, value in sorted(view.labels.items()))),
            ("Variables", ", ".join(view.env_names)),
            ("Runs", f"{view.runs} ({view.open_executions} in progress)" if view.open_executions else str(view.runs)),
            ("Last error", view.last_error or ""),
            *(("Note", note) for note in view.notes),
        ]
    )
