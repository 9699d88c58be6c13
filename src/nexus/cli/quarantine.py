"""`nexus projections quarantine`, `retry` and `skip`: what to do about an event that a read model cannot take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.cli.terminal import visible
from nexus.domain.errors import VerificationFailed
from nexus.domain.policies import authorize
from nexus.domain.values import Action

if TYPE_CHECKING:
    from nexus.projections.quarantine import Held
    from nexus.projections.replay import Poison

_SHOWN = 400
"""Characters of a payload on the terminal; `--json` has all of it."""

_reference = click.argument("reference", metavar="SANDBOX_ID|STREAM")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common
@pass_session
def quarantine(session: Session, names: tuple[str, ...]) -> int:
    """Show what read models leave alone: the event that each stumbled over, and why.

    The rest of a read model goes on. Exits with 7 when there is something.
    """
    from nexus.projections.catalog import ALL, named
    from nexus.projections.quarantine import inspect

    authorize(session.operator, Action.OPERATE, None)
    chosen = [named(name) for name in names] or ALL
    held = [one for projection in chosen for one in inspect(session.store, projection)]
    output = session.output
    if output.json:
        output.value({"quarantine": [_as_dict(one) for one in held]})
    for one in held if not output.json else ():
        poison = one.poison
        output.line(f"{one.projection}: {poison.originator_id} since position {poison.position}")
        output.line(f"    event    {poison.topic}, version {poison.schema_version}")
        output.line(f"    error    {visible(poison.error)}")
        output.line(f"    payload  {visible(one.payload[:_SHOWN])}{'…' if len(one.payload) > _SHOWN else ''}")
        output.line(f"    waiting  {one.waiting} events")
    if not held and not output.json:
        output.line("Nothing is left alone.")
    return 7 if held else 0


@click.command()
@click.argument("name")
@click.argument("reference", metavar="[SANDBOX_ID|STREAM]", required=False)
@common
@pass_session
def retry(session: Session, name: str, reference: str | None) -> None:
    """Let a read model take what it left alone, this sandbox or all: after an upgrade that reads the event, say.

    Exits with 7 when something is still in the way.
    """
    from nexus.projections.catalog import named
    from nexus.projections.held import quarantined
    from nexus.projections.quarantine import retry as again

    authorize(session.operator, Action.OPERATE, None)
    projection = named(name)
    streams = [reference] if reference else [one.originator_id for one in quarantined(session.store.views, projection)]
    _tell(session, name, {stream: again(session.store, projection, stream) for stream in streams})


@click.command()
@click.argument("name")
@_reference
@common
@pass_session
def skip(session: Session, name: str, reference: str) -> None:
    """Let a read model pass over the event that it cannot take, and take what follows it.

    The event stays in the log; the read model lacks what it would have said. That is recorded, with your name, and
    holds until the read model is rebuilt. Exits with 7 when a later event is in the way.
    """
    from nexus.projections.catalog import named
    from nexus.projections.quarantine import pass_over

    authorize(session.operator, Action.OPERATE, None)
    _tell(session, name, {reference: pass_over(session.store, named(name), reference, session.operator)})


def _tell(session: Session, name: str, done: dict[str, Poison | None]) -> None:
    left = {stream: poison for stream, poison in done.items() if poison is not None}
    if session.output.json:
        session.output.value({"released": [one for one in done if one not in left], "left": sorted(left)})
    else:
        for stream in done:
            if stream not in left:
                session.output.line(f"{name} takes {stream} again")
        if not done:
            session.output.line("Nothing is left alone.")
    if left:
        stream, poison = next(iter(left.items()))
        raise VerificationFailed(
            f"{name} cannot take {stream}: position {poison.position}: {poison.error}",
            hint=f"`nexus projections quarantine {name}` shows the event, `nexus projections skip` passes over it.",
        )


def _as_dict(one: Held) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "projection": one.projection,
        **asdict(one.poison),
        "event_id": one.event.event_id if one.event is not None else None,
        "payload": one.payload,
        "waiting": one.waiting,
    }
