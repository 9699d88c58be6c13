"""The `nexus` program: its commands, and how a call of it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

import nexus
from nexus.cli import failures
from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common
from nexus.cli.session import Session
from nexus.cli.terminal import drop_stdout, prepare_streams

if TYPE_CHECKING:
    from nexus.domain.provider import Provider

NAME: Final = "nexus"
COMPLETE: Final = "_NEXUS_COMPLETE"
"""Set by the shells' completion functions."""

_COMMANDS: Final = {
    "sandbox": ("nexus.cli.sandbox:sandbox", "Create sandboxes, run code in them, stop them."),
    "events": ("nexus.cli.events:events", "Read the history of sandboxes."),
    "replay": ("nexus.cli.replay:replay", "Show a sandbox's life again, event by event."),
    "audit": ("nexus.cli.audit:audit", "Tell why, and prove that nobody touched the history."),
    "usage": ("nexus.cli.usage:usage", "Show time used, runs, outcomes and estimated cost."),
    "reconcile": ("nexus.cli.operation:reconcile", "Make resources and live sandboxes the same set again."),
    "worker": ("nexus.cli.operation:worker", "Expire, recover and reconcile until told to stop."),
    "migrate": ("nexus.cli.migrate:migrate", "Bring a Postgres store up to date."),
    "projections": ("nexus.cli.projections:projections", "Look after the read models."),
    "template": ("nexus.cli.template:template", "What sandboxes are made from."),
    "pool": ("nexus.cli.pool:pool", "Keep sandboxes ready before anybody asks."),
    "providers": ("nexus.cli.providers:providers", "Show what each provider can do."),
    "doctor": ("nexus.cli.doctor:doctor", "Check this installation and say what to install."),
    "config": ("nexus.cli.settings:config", "Show the settings and where they come from."),
    "completion": ("nexus.cli.completion:completion", "Print the completion script for a shell."),
}


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        sys.stdout.write(f"{NAME} {nexus.__version__}\n")
        ctx.exit()


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
@common
def nexus_command() -> None:
    """Sandboxes for code that you do not trust, with a history that can be proven.

    Data goes to stdout, everything else to stderr. Exit status: 0; 1 failed; 2 wrong input; 4 not allowed; 5 not
    found; 6 conflict, or the state does not allow it; 7 verification failed; 130 interrupted. `sandbox run` and
    `sandbox exec` exit as the program did, with 124 when it took too long, and with 125 when it could not be started.
    """


def run(arguments: Sequence[str] | None = None, given: Iterable[Provider] = ()) -> int:
    """Run one command line; returns the exit status and lets no exception out."""
    prepare_streams()
    args = sys.argv[1:] if arguments is None else list(arguments)
    session = Session(given)
    try:
        if COMPLETE in os.environ:
            return _complete(os.environ[COMPLETE])
        with _ending_signals():
            status = _invoke(args, session)
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        drop_stdout()
        return failures.BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - nothing but a message reaches a user
        return _failed(error, args, session)


def _invoke(args: list[str], session: Session) -> int:
    try:
        with nexus_command.make_context(NAME, args, obj=session) as ctx:
            returned = nexus_command.invoke(ctx)
        return returned if isinstance(returned, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    finally:
        session.close()


def _failed(error: BaseException, args: list[str], session: Session) -> int:
    """Report an error, as far as there is still somebody to report to."""
    if isinstance(error, click.UsageError) and "--json" in args[: args.index("--") if "--" in args else None]:
        session.output.json = True  # the line was wrong before the option was seen
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop_stdout()
    try:
        failures.report(error, session.output)
    except (OSError, ValueError):
        pass  # nobody listens on stderr
    return failures.status_of(error, session.failure)


def _complete(instruction: str) -> int:
    from click.shell_completion import shell_complete

    return shell_complete(nexus_command, {"obj": Session()}, NAME, COMPLETE, instruction)


@contextmanager
def _ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a call as Ctrl-C does, so that what it runs is killed and recorded."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise failures.Terminated(number)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        try:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
        except ValueError:
            break  # not in the main thread: whoever embeds this looks after signals
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
