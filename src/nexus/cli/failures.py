"""From an exception to an exit status and one message: no traceback ever reaches a user."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from nexus.cli.output import Output
from nexus.domain.errors import (
    Conflict,
    ExecutionLost,
    ExecutionTimedOut,
    InvalidInput,
    NexusError,
    NotAllowed,
    NotFound,
    VerificationFailed,
)

USAGE: Final = 2
NOT_ALLOWED: Final = 4
NOT_FOUND: Final = 5
CONFLICT: Final = 6
VERIFICATION_FAILED: Final = 7
TIMED_OUT: Final = 124
NOT_RUN: Final = 125
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

_STATUS: Final[tuple[tuple[type[NexusError], int], ...]] = (
    (InvalidInput, USAGE),
    (NotAllowed, NOT_ALLOWED),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (VerificationFailed, VERIFICATION_FAILED),
    (ExecutionTimedOut, TIMED_OUT),
    (ExecutionLost, 1),  # never 125: it may have run
)


class Terminated(KeyboardInterrupt):
    """A signal that asks this process to end, treated as Ctrl-C is: what runs is killed and recorded."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status_of(error: BaseException, failure: int) -> int:
    """The exit status for an error; `failure` is that of a system that failed."""
    if isinstance(error, Terminated):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((status for kind, status in _STATUS if isinstance(error, kind)), failure)


def report(error: BaseException, output: Output) -> None:
    """Say on stderr what went wrong: as one JSON object in JSON mode, else as a line and a hint."""
    code, message, hint = _told(error)
    if debugging() and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not output.json:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
    else:
        output.problem(code, message, hint)


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("NEXUS_DEBUG", "") not in ("", "0")


def _told(error: BaseException) -> tuple[str, str, str]:
    if isinstance(error, NexusError):
        return error.code, error.message, error.hint
    if isinstance(error, click.UsageError):
        return "usage", error.format_message(), _usage_hint(error)
    if isinstance(error, click.ClickException):
        return "usage", error.format_message(), ""
    if isinstance(error, Terminated):
        return "interrupted", f"Ended by signal {error.number}", ""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "Interrupted", ""
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if isinstance(error.filename, str) else ""
        return "system", f"The operating system reports: {error.strerror}{name}", ""
    # The text of an exception that nobody foresaw may quote anything, secrets too: its type has to do.
    return (
        "unexpected",
        f"Nexus met an error that it does not know: {type(error).__name__}",
        "Set NEXUS_DEBUG=1 for the details.",
    )


def _usage_hint(error: click.UsageError) -> str:
    if error.ctx is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return ""
    return f"'{error.ctx.command_path} --help' shows what is possible."
