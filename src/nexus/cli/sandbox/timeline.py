"""`nexus sandbox timeline`: lives as bars on an axis of time, in a terminal or as a report."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from nexus.cli.options import Reference, Whole, common, moment_option
from nexus.cli.session import Session, pass_session
from nexus.cli.terminal import visible
from nexus.cli.times import duration
from nexus.domain.errors import InvalidInput, NotAllowed

if TYPE_CHECKING:
    from nexus.engine.timeline import Timeline

_GLYPHS: Final = {
    "creating": "┄",
    "active": "━",
    "paused": "╌",
    "succeeded": "●",
    "failed": "✗",
    "timed_out": "✗",
    "lost": "✗",
    "running": "○",
}
_PLAIN: Final = {
    "creating": ".",
    "active": "=",
    "paused": "-",
    "succeeded": "o",
    "failed": "x",
    "timed_out": "x",
    "lost": "x",
    "running": ">",
}
_LEAST: Final = 20
"""Columns of the axis, however narrow the terminal."""


@click.command()
@click.argument("sandbox", type=Reference(), required=False)
@click.option("--svg", metavar="FILE", help="Write a picture to this new file; - for stdout.")
@click.option("--html", metavar="FILE", help="Write a report to this new file; - for stdout.")
@click.option(
    "--limit", type=Whole("sandboxes", 1, 10_000), default=100, metavar="N", help="The newest so many.  [100]"
)
@click.option("--all-users", is_flag=True, help="Those of all users of the tenant; for admins.")
@moment_option
@common
@pass_session
def timeline(
    session: Session,
    sandbox: str | None,
    svg: str | None,
    html: str | None,
    limit: int,
    all_users: bool,
    as_of: str | None,
) -> None:
    """Draw when sandboxes were created, active and paused, and what ran in them. Straight from the log.

    One sandbox, or all of yours. The reports hold everything in one file: no scripts, nothing from elsewhere.
    """
    if svg is not None and html is not None:
        raise click.UsageError("Give --svg or --html, not both.")
    told, more = _told(session, sandbox, as_of, limit, all_users)
    target = html if html is not None else svg
    if target is not None:
        from nexus.cli.sandbox.timeline_svg import page, picture

        _write(session, target, page(told) if html is not None else picture(told))
        return
    output = session.output
    if output.json:
        from nexus.domain.values import to_text

        sandboxes = [line.to_dict() for line in told.lines]
        output.value({"begin": to_text(told.begin), "end": to_text(told.end), "sandboxes": sandboxes})
    elif output.quiet:
        for line in told.lines:
            output.line(line.life.sandbox_id)
    else:
        for text in drawn(told, shutil.get_terminal_size((100, 24)).columns, plain=not _draws()):
            output.line(text)
    if more:
        output.hint(f"There are {more} older ones: --limit")


def _told(
    session: Session, sandbox: str | None, as_of: str | None, limit: int, all_users: bool
) -> tuple[Timeline, int]:
    """What is to be drawn, and how many older sandboxes it leaves out."""
    from nexus.engine.eventlog import EventLog
    from nexus.engine.history import NOW, Moment
    from nexus.engine.lives import lives
    from nexus.engine.timeline import timeline as laid_out

    principal, store = session.principal, session.store
    if all_users and not principal.is_admin:
        raise NotAllowed(f"{principal.actor} may not see other users' sandboxes", actor=principal.actor)
    moment = NOW if as_of is None else Moment.parse(as_of)
    if sandbox is not None:  # a name means the sandbox that bore it then
        sandbox = session.history.status(principal, sandbox, moment).sandbox_id
    head = store.head()
    until = moment.time or store.now()
    events = []
    log = EventLog(store, session.queries)
    for envelope in log.each(principal, reference=sandbox, upto=head if moment.position is None else moment.position):
        if moment.covers(envelope):
            events.append(envelope)
    if moment.position is not None and moment.position < head and events:
        until = max(envelope.recorded_at or envelope.occurred_at for envelope in events)
    owned = [
        life
        for life in lives(events)
        if sandbox is not None
        or all_users
        or (life.user_id, life.tenant_id) == (principal.user_id, principal.tenant_id)
    ]
    return laid_out(owned[-limit:], until), max(0, len(owned) - limit)


def drawn(told: Timeline, width: int, *, plain: bool = False) -> list[str]:
    """Lines of text, none wider than `width` columns (but for the narrowest axis); `plain` keeps them in ASCII."""
    if not told.lines:
        return ["There are no such sandboxes."]
    glyphs = _PLAIN if plain else _GLYPHS
    names = [_cut(visible(line.life.name), max(8, min(24, width // 4)), plain) for line in told.lines]
    left = max(map(len, names))
    columns = max(_LEAST, width - left - 2)
    rows = [
        f"{told.begin:%Y-%m-%d %H:%M:%S} to {told.end:%Y-%m-%d %H:%M:%S} UTC",
        f"a column is {duration((told.end - told.begin).total_seconds() / columns)}",
    ]
    for name, line in zip(names, told.lines, strict=True):
        cells = [" "] * columns
        for stretch in line.stretches:
            first = min(columns - 1, int(told.place(stretch.start) * columns))
            last = max(first + 1, round(told.place(stretch.end) * columns))
            cells[first:last] = glyphs[stretch.state.value] * (last - first)
        for mark in line.marks:
            cells[min(columns - 1, int(told.place(mark.start) * columns))] = glyphs[mark.outcome.value]
        rows.append(f"{name.ljust(left)}  {''.join(cells)}".rstrip())
    states = [f"{glyphs[state]} {state}" for state in ("creating", "active", "paused")]
    runs = [f"{glyphs[run]} run {word}" for run, word in (("succeeded", "ok"), ("failed", "bad"), ("running", "open"))]
    legend, line_of = "", []
    for part in (*states, *runs):
        if legend and len(legend) + 2 + len(part) > max(width, _LEAST):
            line_of.append(legend)
            legend = ""
        legend += ("  " if legend else "") + part
    return [*rows, *line_of, legend]


def _cut(text: str, width: int, plain: bool) -> str:
    ending = "~" if plain else "…"
    return text if len(text) <= width else text[: width - 1] + ending


def _draws() -> bool:
    """Whether stdout can write what a bar is drawn with."""
    try:
        "".join(_GLYPHS.values()).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _write(session: Session, target: str, text: str) -> None:
    if target == "-":
        sys.stdout.buffer.write(text.encode())
        return
    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no file name"
        raise InvalidInput(f"The report cannot be written to {target}: {why}", field="output") from None
    if session.output.json:
        session.output.value({"file": target})
    else:
        session.output.hint(f"Written to {target}.")
