"""`nexus pool`: sandboxes that are made before anybody asks."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.domain.errors import ConfigurationError
from nexus.domain.values import MemberState

if TYPE_CHECKING:
    from nexus.engine.pool import PoolStatus
    from nexus.engine.recovery import Report

_COMMANDS: Final = {
    "status": ("nexus.cli.pool:status", "Show what is ready, and what should be."),
    "fill": ("nexus.cli.pool:fill", "Make what is missing, now."),
    "drain": ("nexus.cli.pool:drain", "Remove all that nobody has taken."),
}
_NONE: Final = "Set NEXUS_POOL_SIZE, or `pool = N` in a template of the configuration file."


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def pool() -> None:
    """Keep sandboxes ready before anybody asks: `sandbox create` then takes one instead of waiting.

    NEXUS_POOL_SIZE says how many of the default template, `pool = N` in a template how many of that one;
    NEXUS_POOL_TOTAL bounds all together. `nexus worker` keeps them in number, and so does a Python program that uses
    NexusFS. What nobody takes is replaced after an hour.
    """


@click.command()
@common
@pass_session
def status(session: Session) -> None:
    """Show what is ready, and what should be."""
    found = session.engine.pool.status(session.operator)
    output = session.output
    if output.json:
        output.value(
            {
                "provider": found.provider or None,
                "templates": _numbers(found),
                "members": [member.to_dict() for member in found.members],
            }
        )
        return
    if output.quiet:
        for member in found.members:
            output.line(member.member_id)
        return
    from nexus.cli.times import since, until

    for name, numbers in _numbers(found).items():
        output.line(f"{name}: {numbers['ready']} ready of {numbers['wanted']} wanted")
    now = session.now()
    rows = [
        [
            member.member_id[:11],
            member.template,
            member.provider,
            member.status,
            since(member.ready_at or member.requested_at, now),
            until(member.expires_at, now),
            " ".join(filter(None, (member.reason, member.detail))),
        ]
        for member in found.members
    ]
    if rows:
        output.table(["MEMBER", "TEMPLATE", "PROVIDER", "STATUS", "SINCE", "REPLACED IN", "WHY"], rows)
    elif not found.wanted:
        output.hint(f"No pool is kept. {_NONE}")


@click.command()
@common
@pass_session
def fill(session: Session) -> int:
    """Make what is missing, now. Replaces what is outdated, too, and removes what is too much."""
    engine = session.engine
    if engine.pool.plan is None:
        raise ConfigurationError("No pool is configured", hint=_NONE)
    from nexus.domain.policies import authorize
    from nexus.domain.values import Action

    authorize(session.operator, Action.OPERATE, None)
    with session.output.progress("Filling the pool"):
        report = engine.pool.tend()
    return _told(session, report, "The pool is full.")


@click.command()
@common
@pass_session
def drain(session: Session) -> int:
    """Remove all that nobody has taken. Whoever keeps the pool makes new ones: stop the workers first."""
    with session.output.progress("Emptying the pool"):
        report = session.engine.pool.drain(session.operator)
    return _told(session, report, "The pool was empty.")


def _told(session: Session, report: Report, nothing: str) -> int:
    output = session.output
    if output.json:
        output.value({"pool": report.pool, "problems": report.problems})
    else:
        for line in report.pool:
            output.line(line)
        for problem in report.problems:
            output.warn(problem)
        if not report.pool and not report.problems:
            output.hint(nothing)
    return int(bool(report.problems))


def _numbers(found: PoolStatus) -> dict[str, Any]:
    """Template → how many are wanted and how many are ready."""
    ready = Counter(member.template for member in found.members if member.status is MemberState.READY)
    names = dict.fromkeys([*found.wanted, *(member.template for member in found.members)])
    return {name: {"wanted": found.wanted.get(name, 0), "ready": ready[name]} for name in names}
