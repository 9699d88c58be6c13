"""`nexus audit log` and `nexus audit export`: who did what, when, and caused by what."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from nexus.cli.options import Reference, Whole, common
from nexus.cli.period import check_period, period_options
from nexus.cli.session import Session, pass_session

if TYPE_CHECKING:
    from nexus.domain.events import Envelope
    from nexus.engine.audit.journal import Journal, Wanted

F = TypeVar("F", bound=Callable[..., Any])

_LOOK: Final = 1.0
"""Seconds that a follower waits at a time."""
_PAGE: Final = 100


def _filters(command: F) -> F:
    """What both commands can be asked for."""
    for add in (
        click.option("--after", type=Whole("positions", 0), default=0, metavar="POSITION", help="Only what follows."),
        period_options,
        click.option("--correlation", metavar="ID", help="Only of this story, through engine, worker and take-over."),
        click.option("--refused", is_flag=True, help="Only commands that were refused."),
        click.option("--type", "types", multiple=True, metavar="TYPE", help="Only of this type; may be repeated."),
        click.option("--command", metavar="NAME", help="Only from this command, such as run or expire."),
        click.option("--origin", metavar="ORIGIN", help="Only from there: worker, cli@host, @host, or all of it."),
        click.option("--agent", metavar="ID", help="Only on behalf of this agent."),
        click.option("--tenant", metavar="ID", help="Only of this tenant, for those who see several."),
        click.option("--actor", metavar="ACTOR", help="Only by this one, such as user:ann or system:worker."),
        click.argument("sandbox", type=Reference(), required=False),
    ):
        command = add(command)
    return command


@click.command()
@_filters
@click.option("--limit", type=Whole("entries", 1, 100_000), metavar="N", help="At most so many.  [100; follow: none]")
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until interrupted.")
@common
@pass_session
def log(session: Session, /, sandbox: str | None, after: int, limit: int | None, follow: bool, **filters: Any) -> None:
    """Show who did what, when, and caused by what: of one sandbox, or of all that you may see. Oldest first.

    Entries of one story share a correlation id; an entry that another one caused names that one's event id. With
    --json: {"entries": [...], "next_after": ...}; with --follow each is one object on a line.
    """
    wanted, journal = _wanted(**filters), _journal(session)
    output = session.output
    if follow:
        if wanted.until is not None:
            raise click.UsageError("--follow goes on; it goes not with --until.")
        _follow(session, journal, wanted, sandbox, after, limit)
        return
    page = journal.page(session.principal, wanted, sandbox=sandbox, after=after, limit=limit or _PAGE)
    if output.json:
        from nexus.engine.audit.journal import record

        output.value({"entries": [record(envelope) for envelope in page.entries], "next_after": page.after})
        return
    for envelope in page.entries:
        _show(session, envelope)
    if not page.entries:
        output.hint("There are no such entries.")
    if page.after is not None:
        output.hint(f"There are more: --after {page.after}")


@click.command()
@_filters
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "cloudevents"]),
    default="jsonl",
    help="One object a line, a table, or CloudEvents 1.0 a line.  [jsonl]",
)
@common
@pass_session
def export(session: Session, /, sandbox: str | None, after: int, form: str, **filters: Any) -> None:
    """Write the audit log to stdout, for other programs: everything that fits, up to the present end of the log.

    CSV is safe to open: what a spreadsheet would take for a formula begins with an apostrophe.
    """
    from nexus.cli.terminal import is_terminal, visible
    from nexus.engine.audit.export import FORMATS

    wanted, journal = _wanted(**filters), _journal(session)
    store = session.store
    entries = journal.entries(session.principal, wanted, sandbox=sandbox, after=after, upto=store.head())
    for piece in FORMATS[form](entries, store.installation):
        if is_terminal(sys.stdout):
            sys.stdout.write(visible(piece.replace("\r\n", "\n"), "\n"))
        else:
            # UTF-8 whatever the locale is: the file may be opened elsewhere.
            sys.stdout.buffer.write(piece.encode("utf-8", "backslashreplace"))


def _wanted(
    since: datetime | None, until: datetime | None, refused: bool, types: tuple[str, ...], **filters: Any
) -> Wanted:
    from nexus.domain.events import CommandRefused
    from nexus.engine.audit.journal import Wanted

    check_period(since, until)
    if refused and types:
        raise click.UsageError("--refused is a type; it goes not with --type.")
    return Wanted(since=since, until=until, types=(CommandRefused.TOPIC,) if refused else types, **filters)


def _journal(session: Session) -> Journal:
    from nexus.engine.audit.journal import Journal
    from nexus.engine.eventlog import EventLog

    return Journal(EventLog(session.store, session.queries))


def _follow(
    session: Session, journal: Journal, wanted: Wanted, sandbox: str | None, after: int, limit: int | None
) -> None:
    """Entries as they come; ends by itself once `limit` of them were shown."""
    if sandbox is not None:
        # A name can come to mean another sandbox while this goes on; the question was about this one.
        sandbox = session.queries.by_reference(sandbox, session.principal).sandbox_id
    shown = 0
    while True:
        head = session.store.head()
        for envelope in journal.entries(session.principal, wanted, sandbox=sandbox, after=after, upto=head):
            _show(session, envelope)
            shown += 1
            if shown == limit:
                return
        session.output.flush()
        after = max(after, head)
        while not session.store.wait(after, _LOOK):
            pass


def _show(session: Session, envelope: Envelope) -> None:
    from nexus.engine.audit.journal import record
    from nexus.projections.narrative import told

    output = session.output
    if output.json:
        output.value(record(envelope), compact=True)
        return
    if output.quiet:
        output.line(envelope.event_id)
        return
    entry = record(envelope)
    agent = f", agent {entry['agent_id']}" if entry["agent_id"] else ""
    cause = f", caused by {entry['causation_id']}" if entry["causation_id"] else ""
    output.line(told(envelope))
    output.line(
        f"    {entry['type']} by {entry['command']} on {entry['sandbox_id'] or envelope.originator_id}, "
        f"tenant {entry['tenant_id']}{agent}, from {entry['origin']}"
    )
    output.line(f"    event {entry['event_id']}, correlation {entry['correlation_id']}{cause}")
