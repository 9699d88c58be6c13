"""`nexus sandbox pause`, `resume`, `extend` and `stop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nexus.cli import failures
from nexus.cli.options import Reference, Whole, common, sandbox_argument
from nexus.cli.session import Session, pass_session
from nexus.cli.times import until
from nexus.domain.errors import NexusError

if TYPE_CHECKING:
    from nexus.projections.views import SandboxView


def _say(session: Session, what: str, view: SandboxView, more: str = "") -> None:
    output = session.output
    if output.json:
        output.value(view.to_dict(session.now()))
    else:
        output.line(view.sandbox_id if output.quiet else f"{what} sandbox: {view.sandbox_id}{more}")


@click.command()
@sandbox_argument
@common
@pass_session
def pause(session: Session, sandbox: str) -> None:
    """Pause a sandbox; its time to live stands still."""
    with session.output.progress("Pausing"):
        view = session.engine.pause(session.principal, sandbox)
    _say(session, "Paused", view)


@click.command()
@sandbox_argument
@common
@pass_session
def resume(session: Session, sandbox: str) -> None:
    """Resume a paused sandbox."""
    with session.output.progress("Resuming"):
        view = session.engine.resume(session.principal, sandbox)
    _say(session, "Resumed", view)


@click.command()
@sandbox_argument
@click.option("--ttl", type=Whole("minutes"), metavar="MINUTES", required=True, help="Minutes to live from now on.")
@common
@pass_session
def extend(session: Session, sandbox: str, ttl: int) -> None:
    """Let a sandbox live longer: at least this many minutes from now; never shorter than before."""
    view = session.engine.extend(session.principal, sandbox, ttl)
    more = f" ({until(view.expires_at, session.now())} left)" if view.expires_at is not None else ""
    _say(session, "Extended", view, more)


@click.command()
@click.argument("sandboxes", type=Reference(), nargs=-1, metavar="SANDBOX...")
@click.option("--all", "everything", is_flag=True, help="Stop all of your sandboxes.")
@common
@pass_session
def stop(session: Session, sandboxes: tuple[str, ...], everything: bool) -> int:
    """Destroy sandboxes. Final; stopping what is stopped changes nothing.

    Given several, it stops all that it can and exits with the status of the first that it could not stop. With
    --json, one sandbox is printed as an object of its own, several as {"sandboxes": [...]}.
    """
    if everything == bool(sandboxes):
        raise click.UsageError("Give the sandboxes to stop, or --all.")
    references = list(sandboxes) or _own_live(session)
    if len(references) == 1 and not everything:
        with session.output.progress("Stopping"):
            view = session.engine.stop(session.principal, references[0])
        _say(session, "Stopped", view)
        return 0
    status = 0
    stopped: list[dict[str, Any]] = []
    for reference in references:
        try:
            with session.output.progress("Stopping"):
                view = session.engine.stop(session.principal, reference)
        except NexusError as error:
            failures.report(error, session.output)
            status = status or failures.status_of(error, session.failure)
            continue
        stopped.append(view.to_dict(session.now()))
        if not session.output.json:
            _say(session, "Stopped", view)
    if session.output.json:
        session.output.value({"sandboxes": stopped})
    elif not references:
        session.output.hint("There is nothing to stop.")
    return status


def _own_live(session: Session) -> list[str]:
    from nexus.cli.sandbox.listing import LIVE, all_pages

    return [view.sandbox_id for view in all_pages(session, states=LIVE)]
