"""`nexus sandbox logs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nexus.cli.options import Whole, common, sandbox_argument
from nexus.cli.session import Session, pass_session
from nexus.cli.times import duration, since, size

if TYPE_CHECKING:
    from nexus.projections.views import ExecutionView


@click.command()
@sandbox_argument
@click.option("--limit", type=Whole("runs", 1, 10_000), default=100, metavar="N", help="The newest so many.  [100]")
@common
@pass_session
def logs(session: Session, sandbox: str, limit: int) -> None:
    """List what was run in a sandbox, oldest first: when, what came of it, and how much it printed.

    What is recorded of code and output is their size and SHA-256. Where a sandbox captures them, `nexus audit body`
    shows them.
    """
    from nexus.projections.projector import Projector

    view = session.queries.by_reference(sandbox, session.principal)
    Projector(session.store).catch_up("executions")
    runs = session.queries.executions(view.sandbox_id, limit=limit)[::-1]
    output = session.output
    if output.json:
        output.value({"sandbox_id": view.sandbox_id, "executions": [run.to_dict() for run in runs]})
        return
    if output.quiet:
        for run in runs:
            output.line(run.execution_id)
        return
    now = session.now()
    output.table(
        ["EXECUTION", "STARTED", "LANGUAGE", "OUTCOME", "EXIT", "TOOK", "CODE", "STDOUT", "STDERR"],
        [
            [
                run.execution_id[:15],
                since(run.started_at, now),
                run.language,
                _outcome(run),
                "" if run.exit_code is None else str(run.exit_code),
                "" if run.duration is None else duration(run.duration),
                size(run.code_bytes),
                "" if run.stdout_bytes is None else size(run.stdout_bytes),
                "" if run.stderr_bytes is None else size(run.stderr_bytes),
            ]
            for run in runs
        ],
    )
    if view.capture:
        output.hint("`nexus audit body EXECUTION` shows code and output; --quiet lists whole ids.")
    else:
        output.hint("Code and output are not kept, only their sizes and digests.")


def _outcome(run: ExecutionView) -> str:
    words = [run.status.replace("_", " ")]
    if run.oom_killed:
        words.append("out of memory")
    if run.truncated:
        words.append("output cut")
    if run.reason:
        words.append(run.reason)
    return ", ".join(words)
