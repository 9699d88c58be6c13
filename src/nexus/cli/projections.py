"""`nexus projections`: status, rebuild and verify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.domain.errors import VerificationFailed

if TYPE_CHECKING:
    from nexus.projections.projector import Projector, Status
    from nexus.projections.verify import Verdict

_HERE: Final = "nexus.cli.projections"
_COMMANDS: Final = {
    "status": (f"{_HERE}:status", "Show how far each read model has followed the log."),
    "rebuild": (f"{_HERE}:rebuild", "Build read models anew from the log."),
    "verify": (f"{_HERE}:verify", "Hold read models against a replay of the log."),
    "quarantine": ("nexus.cli.quarantine:quarantine", "Show what read models leave alone, and why."),
    "retry": ("nexus.cli.quarantine:retry", "Let read models take what they left alone."),
    "skip": ("nexus.cli.quarantine:skip", "Let a read model pass over an event that it cannot take."),
}

_names = click.argument("names", nargs=-1, metavar="[NAME]...")


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def projections() -> None:
    """Look after the read models: what `list`, `status` and `logs` show.

    They are made from the log alone and can be thrown away and made again at any time, while everything is in use.
    """


@click.command()
@common
@pass_session
def status(session: Session) -> int:
    """Show how far each read model has followed the log.

    Exits with 7 when one had to leave a sandbox alone because of an event that it could not take.
    """
    found = _projector(session).status()
    output = session.output
    if output.json:
        output.value({"projections": [_status_as_dict(one) for one in found]})
    else:
        output.table(
            ["PROJECTION", "VERSION", "WRITTEN", "POSITION", "BEHIND", "QUARANTINED"],
            [
                [
                    one.name,
                    str(one.version),
                    "with the event" if one.kind == "inline" else "from the log",
                    str(one.position),
                    str(one.lag),
                    str(len(one.quarantined)),
                ]
                for one in found
            ],
        )
        for one in found:
            for poison in one.quarantined:
                output.warn(f"{one.name}: {poison.originator_id} since position {poison.position}: {poison.error}")
        if any(one.quarantined for one in found):
            output.warn("`nexus projections quarantine` shows the events; `retry` and `skip` let the sandboxes go.")
    return 7 if any(one.quarantined for one in found) else 0


@click.command()
@_names
@common
@pass_session
def rebuild(session: Session, names: tuple[str, ...]) -> None:
    """Build read models anew from the log: these, or all. Readers and writers go on meanwhile."""
    session.require_operator("rebuild")
    projector = _projector(session)
    done = []
    for name in _chosen(projector, names):
        with session.output.progress(f"Rebuilding {name}"):
            done.append(projector.rebuild(name))
        if not session.output.json:
            last = done[-1]
            session.output.line(f"Rebuilt {name}: {last.events} events, up to position {last.position}")
    if session.output.json:
        from dataclasses import asdict

        session.output.value({"rebuilt": [asdict(one) for one in done]})


@click.command()
@_names
@common
@pass_session
def verify(session: Session, names: tuple[str, ...]) -> None:
    """Hold read models against a replay of the log: these, or all. Exits with 7 at a difference."""
    session.require_operator("verify")
    projector = _projector(session)
    verdicts = []
    for name in _chosen(projector, names):
        with session.output.progress(f"Verifying {name}"):
            verdicts.append(projector.verify(name))
        if not session.output.json:
            _say(session, verdicts[-1])
    if session.output.json:
        session.output.value({"verified": [_verdict_as_dict(one) for one in verdicts]})
    wrong = [one.name for one in verdicts if not one.is_equal]
    if wrong:
        raise VerificationFailed(
            f"Not what the log makes: {', '.join(wrong)}",
            hint="`nexus projections rebuild` makes it anew from the log.",
        )


def _projector(session: Session) -> Projector:
    from nexus.projections.projector import Projector, prepare

    prepare(session.store)
    return Projector(session.store)


def _chosen(projector: Projector, names: Sequence[str]) -> list[str]:
    """All of them when none is named; every name is checked before anything begins."""
    from nexus.projections.catalog import named

    return [named(name).name for name in names] or [one.name for one in projector.status()]


def _say(session: Session, verdict: Verdict) -> None:
    if verdict.is_equal:
        left = f"; {verdict.quarantined} in quarantine" if verdict.quarantined else ""
        session.output.line(f"{verdict.name}: {verdict.rows} rows equal a replay to position {verdict.position}{left}")
    else:
        session.output.line(f"{verdict.name}: DIFFERS: {verdict.difference}")


def _status_as_dict(one: Status) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": one.name,
        "version": one.version,
        "kind": one.kind,
        "position": one.position,
        "head": one.head,
        "lag": one.lag,
        "quarantined": [asdict(poison) for poison in one.quarantined],
    }


def _verdict_as_dict(one: Verdict) -> dict[str, Any]:
    return {
        "name": one.name,
        "equal": one.is_equal,
        "position": one.position,
        "rows": one.rows,
        "quarantined": one.quarantined,
        "difference": None if one.difference is None else str(one.difference),
    }
