"""`nexus events`: the log, as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import Reference, Whole, common
from nexus.cli.session import Session, pass_session
from nexus.domain.errors import InvalidInput
from nexus.domain.validation import shown
from nexus.domain.values import to_text

if TYPE_CHECKING:
    from nexus.domain.events import Envelope
    from nexus.engine.eventlog import EventLog

_COMMANDS: Final = {
    "list": ("nexus.cli.events:list_", "List events, oldest first."),
    "show": ("nexus.cli.events:show", "Show one event in full."),
    "tail": ("nexus.cli.events:tail", "Show the newest events, and those to come with --follow."),
}
_EVENT_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_POSITION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_LOOK: Final = 1.0
"""Seconds that a follower waits at a time."""

_types = click.option("--type", "types", multiple=True, metavar="TYPE", help="Only of this type; may be repeated.")


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def events() -> None:
    """Read the history of sandboxes: who did what, when, and what came of it.

    Events hold digests, sizes, exit codes and reasons; never code, output, or the values of variables.
    """


@click.command(name="list")
@click.argument("sandbox", type=Reference(), required=False)
@click.option("--after", type=Whole("positions", 0), default=0, metavar="POSITION", help="Only what follows this one.")
@click.option(
    "--limit", type=Whole("events", 1, 100_000), metavar="N", help="At most so many.  [100; of a sandbox all]"
)
@_types
@common
@pass_session
def list_(session: Session, sandbox: str | None, after: int, limit: int | None, types: tuple[str, ...]) -> None:
    """List events, oldest first: of one sandbox, or of all that you may see.

    With --json: {"events": [...], "next_after": ...}; give the latter to --after for the next page.
    """
    log = _log(session)
    if sandbox is not None:
        page = log.of(session.principal, sandbox, after=after, limit=limit, types=types)
    else:
        page = log.page(session.principal, after=after, limit=limit or 100, types=types)
    output = session.output
    if output.json:
        output.value({"events": [as_dict(envelope) for envelope in page.events], "next_after": page.after})
        return
    _table(session, page.events)
    if not page.events:
        output.hint("There are no such events.")
    if page.after is not None:
        output.hint(f"There are more: --after {page.after}")


@click.command()
@click.argument("event", metavar="POSITION|EVENT_ID")
@common
@pass_session
def show(session: Session, event: str) -> None:
    """Show one event in full."""
    wanted: int | str
    if _POSITION.fullmatch(event):
        wanted = int(event)
    elif _EVENT_ID.fullmatch(event):
        wanted = event
    else:
        raise InvalidInput(
            f"{shown(event)} is neither a position nor an event id",
            hint="Give a number, or an id such as 0197a3c2-6d3a-7b58-8a0f-3f6f5c1d9d2e.",
            field="event",
        )
    envelope = _log(session).find(session.principal, wanted)
    told = as_dict(envelope)
    if session.output.json:
        session.output.value(told)
        return
    from nexus.cli.output import as_json

    data = told.pop("data")
    pairs = [(name, str(value)) for name, value in told.items() if value is not None]
    pairs += [
        (f"data.{name}", value if isinstance(value, str) else as_json(value))
        for name, value in data.items()
        if value is not None
    ]
    session.output.fields(pairs)


@click.command()
@click.option("-n", "--limit", type=Whole("events", 0, 10_000), default=20, metavar="N", help="How many.  [20]")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until interrupted.")
@_types
@common
@pass_session
def tail(session: Session, limit: int, follow: bool, types: tuple[str, ...]) -> None:
    """Show the newest events, and those to come with --follow.

    The oldest of them comes first; with --json each is one object on a line.
    """
    log = _log(session)
    position = session.store.head()
    _lines(session, log.last(session.principal, limit, types=types, upto=position))
    while follow:
        session.output.flush()
        if log.wait(position, _LOOK):
            head = session.store.head()
            page = log.page(session.principal, after=position, limit=None, types=types, upto=head)
            _lines(session, page.events)
            position = head


def as_dict(envelope: Envelope) -> dict[str, Any]:
    """An event in JSON: the envelope's facts and, as `data`, its payload."""
    from nexus.engine.eventlog import sandbox_of

    return {
        "position": envelope.position,
        "event_id": envelope.event_id,
        "type": envelope.topic,
        "schema_version": envelope.schema_version,
        "sandbox_id": sandbox_of(envelope),
        "stream": envelope.originator_id,
        "stream_version": envelope.originator_version,
        "occurred_at": to_text(envelope.occurred_at),
        "recorded_at": None if envelope.recorded_at is None else to_text(envelope.recorded_at),
        "actor": envelope.actor,
        "agent_id": envelope.agent_id,
        "tenant_id": envelope.tenant_id,
        "origin": envelope.origin,
        "command": envelope.command,
        "correlation_id": envelope.correlation_id,
        "causation_id": envelope.causation_id,
        "data": envelope.event.model_dump(mode="json"),
    }


def _log(session: Session) -> EventLog:
    from nexus.engine.eventlog import EventLog

    return EventLog(session.store, session.queries)


def _row(envelope: Envelope) -> list[str]:
    from nexus.engine.eventlog import sandbox_of
    from nexus.projections.narrative import at, sentence

    return [
        str(envelope.position),
        at(envelope.occurred_at),
        (sandbox_of(envelope) or envelope.originator_id)[:15],
        envelope.topic,
        envelope.actor,
        sentence(envelope),
    ]


def _table(session: Session, envelopes: Iterable[Envelope]) -> None:
    if session.output.quiet:
        for envelope in envelopes:
            session.output.line(envelope.event_id)
        return
    session.output.table(
        ["POSITION", "TIME", "SANDBOX", "TYPE", "ACTOR", "WHAT"], [_row(envelope) for envelope in envelopes]
    )


def _lines(session: Session, envelopes: Iterable[Envelope]) -> None:
    for envelope in envelopes:
        if session.output.json:
            session.output.value(as_dict(envelope), compact=True)
        elif session.output.quiet:
            session.output.line(envelope.event_id)
        else:
            position, time, sandbox, topic, actor, what = _row(envelope)
            session.output.line(f"{position:>6}  {time}  {sandbox}  {topic:22}  {actor}: {what}")
