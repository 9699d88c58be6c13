"""`nexus audit body` and `nexus audit erase`: kept code and output, and their end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.options import common, sandbox_argument
from nexus.cli.session import Session, pass_session
from nexus.domain.values import to_text

if TYPE_CHECKING:
    from nexus.engine.bodies import Body, Part

_PARTS: Final = ("code", "stdout", "stderr")


@click.command()
@click.argument("execution", metavar="EXECUTION")
@click.option("--part", type=click.Choice(_PARTS), help="Only this one, byte for byte.")
@common
@pass_session
def body(session: Session, execution: str, part: str | None) -> int:
    """Show code and output of a run, where its sandbox captures them, and hold each against its digest in the log.

    EXECUTION is the whole id, as `nexus sandbox logs SANDBOX -q` lists them. Exits with 7 when what is kept is not what
    ran, and with 5 when --part asks for something that is not kept. No provider is needed.
    """
    found = session.bodies.read(session.principal, execution)
    if session.output.json:
        session.output.value(_as_dict(found))
    elif part is None:
        _show(session, found)
    else:
        return _write(session, found, next(one for kind, one in found.parts.items() if kind.value == part))
    return 0 if found.intact else 7


@click.command()
@sandbox_argument
@common
@pass_session
def erase(session: Session, sandbox: str) -> None:
    """Erase all kept code and output of a sandbox for good, with the key that opens them.

    The log keeps its digests and gains an event that says who erased and when; `audit verify` finds it as intact as
    before. A sandbox that goes on captures what runs in it later. Copies in backups open as long as these hold the
    sandbox's wrapped key and the master key is there.
    """
    done = session.bodies.erase(session.principal, sandbox)
    output = session.output
    if output.json:
        output.value({"sandbox_id": done.sandbox_id, "executions": done.executions, "position": done.position})
    elif output.quiet:
        output.line(done.sandbox_id)
    elif done.position is None:
        output.line(f"Nothing is kept of {done.sandbox_id}.")
    else:
        output.line(
            f"Erased code and output of {done.executions} runs of {done.sandbox_id}, see event {done.position}."
        )


def _show(session: Session, found: Body) -> None:
    output = session.output
    if output.quiet:
        output.line(found.execution_id)
        return
    output.line(f"{found.language} run {found.execution_id} in {found.sandbox_id}")
    for part in found.parts.values():
        output.line(f"{part.kind.value}: {_told(part)}")
        if part.data:
            for line in part.data.decode(errors="backslashreplace").splitlines():
                output.line(f"    {line}")
    if found.truncated:
        output.hint("More was printed than is kept of it.")


def _told(part: Part) -> str:
    if part.data is None:
        return f"{part.state.value}: {part.detail}"
    return f"{len(part.data)} bytes, {part.state.value}{f': {part.detail}' if part.detail else ''}"


def _write(session: Session, found: Body, part: Part) -> int:
    from nexus.cli.output import ProgramOutput

    if part.state.value != "verified":
        session.output.warn(f"{part.kind.value} is {part.state.value}: {part.detail}")
    if part.data is None:
        return 5 if part.state.value == "missing" else 7
    sink = ProgramOutput()
    sink("stdout", part.data)
    sink.finish()
    sys.stdout.flush()
    return 0 if found.intact else 7


def _as_dict(found: Body) -> dict[str, Any]:
    return {
        "execution_id": found.execution_id,
        "sandbox_id": found.sandbox_id,
        "language": found.language,
        "truncated": found.truncated,
        "intact": found.intact,
        "parts": [
            {
                "kind": part.kind.value,
                "state": part.state.value,
                "detail": part.detail,
                "bytes": None if part.data is None else len(part.data),
                "sha256": part.sha256,
                "kept_at": None if part.kept_at is None else to_text(part.kept_at),
                "text": None if part.data is None else part.data.decode(errors="replace"),
            }
            for part in found.parts.values()
        ],
    }
