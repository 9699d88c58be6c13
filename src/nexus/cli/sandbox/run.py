"""`nexus sandbox run` and `exec`: the program's output and exit status become this program's own."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli import failures
from nexus.cli.options import Whole, common, environment, sandbox_argument
from nexus.cli.output import KeptOutput, ProgramOutput
from nexus.cli.session import Session, pass_session
from nexus.cli.sources import read_file, read_stdin
from nexus.cli.terminal import is_terminal
from nexus.domain.errors import ExecutionTimedOut

if TYPE_CHECKING:
    from nexus.domain.provider import Stream
    from nexus.engine.executions import Execution

_SUFFIXES: Final = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".sh": "bash", ".bash": "bash"}


def _options(command: Any) -> Any:
    """What `run` and `exec` have in common."""
    for option in (
        click.option(
            "--env",
            "variables",
            multiple=True,
            metavar="K[=V]",
            help="An environment variable of this run; without a value, the caller's own. May be repeated.",
        ),
        click.option("-i", "--stdin", is_flag=True, help="Pass standard input on, read to its end first."),
        click.option(
            "--stream/--no-stream", default=None, help="Print output as it comes, or at the end.  [as it comes]"
        ),
        click.option("--timeout", type=Whole("seconds"), metavar="SECONDS", help="Kill it after so long.  [30]"),
    ):
        command = option(command)
    return command


@click.command()
@sandbox_argument
@click.option("-c", "--code", metavar="CODE", help="The code, or '-' to read it from standard input.")
@click.option("-f", "--file", metavar="FILE", help="The file that holds the code.")
@click.option(
    "-l", "--language", metavar="LANGUAGE", help="python, javascript or bash.  [by the file's name, else python]"
)
@_options
@click.option("--fresh", is_flag=True, help="Start a new interpreter, or begin the session anew.")
@click.option("--session", "session_name", metavar="NAME", help="Go on with the variables of the last run in it.")
@common
@pass_session
def run(
    session: Session,
    sandbox: str,
    code: str | None,
    file: str | None,
    language: str | None,
    timeout: int | None,
    stream: bool | None,
    stdin: bool,
    variables: tuple[str, ...],
    fresh: bool,
    session_name: str | None,
) -> int:
    """Run code in a sandbox and exit as it does: its own status, 128+n for signal n, 124 when it took too long.

    125 means that it did not run because something failed. Into files and pipes its output goes byte for byte; on a
    terminal control characters are shown as escapes.
    """
    if (code is None) == (file is None):
        raise click.UsageError("Give the code with -c, '-c -' for standard input, or a file with -f.")
    if code == "-" and stdin:
        raise click.UsageError("Standard input is the code already: leave out --stdin.")
    if language is None:
        language = _SUFFIXES.get(PurePath(file).suffix, "python") if file is not None else "python"
    return _execute(
        session,
        sandbox,
        timeout,
        stream,
        stdin,
        variables,
        language=language,
        code=_code(session, code, file),
        fresh=fresh,
        session=session_name,
    )


@click.command(name="exec")
@sandbox_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@_options
@common
@pass_session
def execute(
    session: Session,
    sandbox: str,
    command: tuple[str, ...],
    timeout: int | None,
    stream: bool | None,
    stdin: bool,
    variables: tuple[str, ...],
) -> int:
    """Run a command in a sandbox, without a shell, and exit as it does (see `run`).

    Put -- before the command, so that its options are not taken for these.
    """
    return _execute(session, sandbox, timeout, stream, stdin, variables, argv=command)


def _code(session: Session, code: str | None, file: str | None) -> bytes:
    limit = session.settings.limits.max_code_bytes
    if file is not None:
        return read_file(file, "code", limit)
    if code == "-":
        if is_terminal(sys.stdin):
            session.output.hint("Reading code from the terminal; end it with Ctrl-D.")
        return read_stdin("code", limit)
    # An argument that is not in the locale's encoding goes on as the bytes that it came in.
    return os.fsencode(code or "")


def _execute(
    session: Session,
    sandbox: str,
    timeout: int | None,
    stream: bool | None,
    stdin: bool,
    variables: tuple[str, ...],
    /,
    **program: Any,
) -> int:
    output = session.output
    if output.json and stream:
        raise click.UsageError("Give --json or --stream, not both.")
    session.failure = failures.NOT_RUN
    env = environment(variables, os.environ)
    given = read_stdin("program's input", session.settings.limits.max_code_bytes) if stdin else b""
    sink: ProgramOutput | KeptOutput | None = None
    if not output.json:
        sink = KeptOutput() if stream is False else ProgramOutput()

    def on_output(which: Stream, data: bytes) -> None:
        session.failure = 1  # it runs: whatever fails from here on, "did not run" would be a lie
        if sink is not None:
            sink(which, data)

    try:
        execution = session.engine.run(
            session.principal, sandbox, timeout=timeout, stdin=given, env=env, on_output=on_output, **program
        )
    except ExecutionTimedOut as error:
        if output.json:
            output.value(_as_dict(error.details["execution"]))
        else:
            _warn(session, error.details["execution"])
        raise
    finally:
        _finish(sink)
    session.failure = 1
    if output.json:
        output.value(_as_dict(execution))
    else:
        _warn(session, execution)
    return execution.exit_code & 0xFF or int(execution.exit_code != 0)


def _finish(sink: ProgramOutput | KeptOutput | None) -> None:
    if isinstance(sink, KeptOutput):
        sink.release()
    elif sink is not None:
        sink.finish()


def _warn(session: Session, execution: Execution) -> None:
    """What the output itself does not tell."""
    for note in execution.notes:
        session.output.warn(note)
    result = execution.result
    for name, kept, written in (
        ("stdout", len(result.stdout), result.stdout_bytes),
        ("stderr", len(result.stderr), result.stderr_bytes),
    ):
        if written > kept:
            session.output.warn(f"{name} was cut: {kept} of {written} bytes were kept")
    if result.oom_killed:
        session.output.warn("the program was killed because the sandbox ran out of memory")


def _as_dict(execution: Execution) -> dict[str, Any]:
    """The facade's keys, and what else is known of the run."""
    result = execution.result
    return {
        "stdout": execution.stdout,
        "stderr": execution.stderr,
        "exit_code": execution.exit_code,
        "execution_time": execution.execution_time,
        "execution_id": execution.execution_id,
        "timed_out": result.timed_out,
        "truncated": execution.truncated,
        "sandbox_id": execution.sandbox_id,
        "language": execution.language,
        "signal": result.signal,
        "oom_killed": result.oom_killed,
        "session_started": result.session_started,
        "stdout_bytes": result.stdout_bytes,
        "stderr_bytes": result.stderr_bytes,
        "valid_utf8": _is_utf8(result.stdout) and _is_utf8(result.stderr),
        "notes": list(execution.notes),
    }


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
