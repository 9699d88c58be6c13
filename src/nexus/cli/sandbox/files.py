"""`nexus sandbox cp`."""

from __future__ import annotations

import os
import posixpath
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.cli.sources import chunks, open_file, read_stdin
from nexus.cli.terminal import VisibleStream, is_terminal
from nexus.cli.times import size
from nexus.domain.errors import InvalidInput
from nexus.domain.validation import shown


@dataclass(frozen=True, slots=True)
class _Place:
    """One side of a copy: a path in a sandbox, or (`sandbox` None) a path here, `-` for a standard stream."""

    path: str
    sandbox: str | None = None

    @classmethod
    def of(cls, text: str) -> _Place:
        before, colon, after = text.partition(":")
        # `./a:b` is a file here: no sandbox has a slash in its name.
        if not colon or "/" in before or not before:
            return cls(text)
        return cls(after, before)


@click.command(name="cp")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@common
@pass_session
def copy(session: Session, source: str, destination: str) -> None:
    """Copy a file into or out of a sandbox.

    One of SRC and DST is SANDBOX:PATH, the other a path here, or '-' for standard input or output. A destination that
    is a folder, or ends in a slash, gets the file under its own name. To copy a folder, copy an archive of it.
    """
    here, there = _Place.of(source), _Place.of(destination)
    if (here.sandbox is None) == (there.sandbox is None):
        raise click.UsageError("Give SANDBOX:PATH on one side, and a path of this machine on the other.")
    if here.sandbox is None:
        _into(session, here.path, there)
    else:
        _out_of(session, here, there.path)


def _into(session: Session, source: str, place: _Place) -> None:
    reference, path = _named(place, source)
    limit = session.engine.limits.max_file_bytes
    with session.output.progress("Copying"):
        if source == "-":
            written = session.engine.write_file(session.principal, reference, path, read_stdin("file", limit))
        else:
            with open_file(source, "file") as descriptor:
                if os.fstat(descriptor).st_size > limit:
                    raise InvalidInput(f"The file {shown(source)} has more than {limit} bytes", field="file")
                written = session.engine.write_file(session.principal, reference, path, chunks(descriptor))
    _say(session, reference, path, written, "in")


def _named(place: _Place, source: str) -> tuple[str, str]:
    """The sandbox, and the path in it with a file's name at its end."""
    path = place.path
    if path == "" or path.endswith("/"):
        if source == "-":
            raise click.UsageError("Give the file a name: SANDBOX:PATH/NAME.")
        path += os.path.basename(source)  # noqa: PTH119 - text, not a path to be normalized
    return place.sandbox or "", path


def _out_of(session: Session, place: _Place, destination: str) -> None:
    output = session.output
    if destination == "-" and output.json:
        raise click.UsageError("The file goes to standard output: leave out --json.")
    content = session.engine.read_file(session.principal, place.sandbox or "", place.path)
    if destination == "-":
        _print(content)
        return
    target = Path(destination)
    if destination.endswith("/") or target.is_dir():
        target = target / posixpath.basename(place.path)
    with output.progress("Copying"):
        written = _save(content, target)
    _say(session, place.sandbox or "", place.path, written, "out", str(target))


def _print(content: Iterable[bytes]) -> None:
    shown_as = VisibleStream() if is_terminal(sys.stdout) else None
    for data in content:
        if shown_as is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        else:
            sys.stdout.write(shown_as.feed(data))
    if shown_as is not None:
        sys.stdout.write(shown_as.feed(b"", final=True))


def _save(content: Iterable[bytes], target: Path) -> int:
    """Write aside and rename, so that a copy that fails leaves what was there before."""
    if target.exists() and not target.is_file():
        raise InvalidInput(f"{shown(str(target))} is not a regular file", field="destination")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".nexus-")
    except OSError as error:
        said = f"Cannot write to {shown(str(target.parent))}: {error.strerror}"
        raise InvalidInput(said, field="destination") from None
    aside = Path(name)
    written = 0
    try:
        with os.fdopen(handle, "wb") as file:
            for data in content:
                written += file.write(data)
        aside.chmod(_mode(target))
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return written


def _mode(target: Path) -> int:
    """What a file made in the ordinary way would have, or the one to be replaced has."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _say(session: Session, reference: str, path: str, written: int, direction: str, local: str | None = None) -> None:
    output = session.output
    if output.json:
        sandbox_id = session.engine.resolve(session.principal, reference)
        output.value({"sandbox_id": sandbox_id, "path": path, "local": local, "direction": direction, "bytes": written})
    elif not output.quiet:
        output.hint(f"Copied {size(written)}.")
