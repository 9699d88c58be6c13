"""`nexus replay`: a sandbox's life again, event by event, without asking any provider."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from nexus.cli.options import common, moment_option, sandbox_argument
from nexus.cli.session import Session, pass_session
from nexus.domain.values import to_text

if TYPE_CHECKING:
    from nexus.engine.history import Step


@click.command()
@sandbox_argument
@moment_option
@click.option("--step", is_flag=True, help="Wait for Enter after each event; on a terminal only.")
@common
@pass_session
def replay(session: Session, sandbox: str, as_of: str | None, step: bool) -> None:
    """Show the state of a sandbox after each of its events, up to now or to a moment.

    Straight from the log: no read model and no provider is asked. With --json, one object per event.
    """
    from nexus.cli.terminal import is_terminal
    from nexus.engine.history import NOW, Moment
    from nexus.projections.narrative import told

    moment = Moment.parse(as_of) if as_of is not None else NOW
    waits = step and is_terminal(sys.stdin) and not session.output.json
    for taken in session.history.replay(session.principal, sandbox, moment):
        if session.output.json:
            session.output.value(_as_dict(taken), compact=True)
            continue
        session.output.line(told(taken.envelope))
        session.output.line(f"    {_state(taken)}")
        if waits:
            session.output.flush()
            sys.stdin.readline()


def _state(taken: Step) -> str:
    view = taken.view
    parts = [f"{view.status}"]
    if view.pending is not None:
        parts.append(f"{view.pending.operation} in flight (attempt {view.pending.attempt})")
    if view.open_executions:
        parts.append(f"{view.open_executions} run(s) in progress")
    if view.expires_at is not None:
        parts.append(f"until {to_text(view.expires_at)}")
    return f"v{view.version}: {', '.join(parts)}"


def _as_dict(taken: Step) -> dict[str, object]:
    envelope = taken.envelope
    return {
        "position": envelope.position,
        "type": envelope.topic,
        "occurred_at": to_text(envelope.occurred_at),
        "actor": envelope.actor,
        "state": taken.view.details(envelope.occurred_at),
    }
