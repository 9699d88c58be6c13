"""Speaking with the programs that keep a run inside the sandbox: their command lines and their frames.

`guest.pl` keeps a run, `server.pl` has the next keeper ready, and `door.sh` finds it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from nexus.domain.errors import ProviderInvalidRequest, ProviderUnsupported
from nexus.domain.provider import OUTPUT_CAP, RunRequest, Stream

INBOX: Final = "/tmp/.nexus/in"  # noqa: S108 - a folder in the sandbox, which is one user's own machine
"""Where code and input go that are too long, or too odd, for a command line."""

_LONGEST_LINE: Final = 100_000
"""Bytes of a command line that Linux takes as one argument (128 KiB), with room to spare."""


def _programs() -> dict[str, str]:
    """The guest's text for each of its modes, without what only serves its readers."""
    programs = {"run": "", "follow": "", "cancel": "", "server": ""}
    folder = files(__package__)
    wanted: list[str] = []
    for name in ("guest.pl", "server.pl"):
        for line in folder.joinpath(name).read_text().splitlines():
            if line.startswith("#:"):
                wanted = line[2:].split()
            elif not line.startswith(("#", "use strict")):
                for mode in wanted:
                    programs[mode] += f"{line.strip()}\n"
    return programs


def _door() -> str:
    text = files(__package__).joinpath("door.sh").read_text()
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


_PROGRAMS: Final = _programs()
_DOOR: Final = _door()
_ROOM: Final = "nexus-" + hashlib.sha256(repr((_PROGRAMS, _DOOR)).encode()).hexdigest()[:12]
"""The name of the fork server's folder in the sandbox. Another version of the programs has another."""

_PLACE: Final = f"[[ -w /dev/shm ]] && set -- /dev/shm/{_ROOM} || set -- /tmp/.nexus/{_ROOM}"
_BEGINNINGS: Final = {mode: f"exec perl -e {shlex.quote(text)}" for mode, text in _PROGRAMS.items()}
_END: Final = f'{_DOOR}\n{_BEGINNINGS["run"]} "$2" "$3" {shlex.quote(_PROGRAMS["server"])} "$1" "$4"'


@dataclass(frozen=True, slots=True)
class Order:
    """One run as the guest is told: a command line for E2B, and what has to be uploaded first."""

    token: str
    line: str
    uploads: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, as the guest saw it."""

    status: int
    """As of waitpid."""
    timed_out: bool
    cancelled: bool
    stdout_bytes: int
    stderr_bytes: int
    duration: float
    left: int
    """Processes that could not be killed."""


@dataclass(frozen=True, slots=True)
class Word:
    """A frame that is a word: `begun`, `used`, `never`, `killed`, `cancelled`."""

    word: str
    left: int = 0


Frame = Output | End | Word
_WORDS: Final = {"b": "begun", "d": "used", "n": "never", "k": "killed"}


class Garbled(ValueError):
    """What came is not what the guest says: something in the sandbox pretends to be it."""


def token(execution_id: str) -> str:
    """The execution id, or its digest where it could not be a file's name."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", execution_id):
        return execution_id
    return hashlib.sha256(execution_id.encode()).hexdigest()


def command(mode: str, name: str, *arguments: str) -> str:
    """A shell command that becomes the guest."""
    if mode != "run":
        return f"{_BEGINNINGS[mode]} {shlex.join([name, *arguments])}"
    parts = (name, *arguments)
    told = " ".join(str(len(part.encode())) for part in parts) + "\n" + "".join(parts)
    return f'{_PLACE}\nset -- "$1" {shlex.quote(name)} {shlex.quote(told)} "$1/{name}.$$"\n{_END}'


def order(request: RunRequest) -> Order:
    """How to run this. Raises `ProviderInvalidRequest` and `ProviderUnsupported`."""
    if (request.code is None) == (request.argv is None):
        raise ProviderInvalidRequest("Exactly one of code and argv is needed")
    name = token(request.execution_id)
    uploads: list[tuple[str, bytes]] = []
    stdin = _inline(request.stdin)
    if stdin is None:
        uploads.append((f"{INBOX}/{name}.stdin", request.stdin))
        stdin = f"@{INBOX}/{name}.stdin"

    def line(argv: tuple[str, ...]) -> str:
        return command("run", name, str(request.timeout), str(OUTPUT_CAP), stdin, *argv)

    if request.argv is not None:
        if not request.argv or any("\0" in word for word in request.argv):
            raise ProviderInvalidRequest("argv is empty, or one of its words holds a NUL")
        whole = line(request.argv)
        if len(whole.encode()) > _LONGEST_LINE:
            raise ProviderInvalidRequest(f"The command line is longer than {_LONGEST_LINE} bytes")
        return Order(name, whole, tuple(uploads))

    assert request.code is not None
    if request.language not in _SHORT:
        raise ProviderUnsupported(f"The e2b provider does not run {request.language}", language=request.language)
    code = _text(request.code)
    if code is not None and len(whole := line(_SHORT[request.language](code))) <= _LONGEST_LINE:
        return Order(name, whole, tuple(uploads))
    path = f"{INBOX}/{name}.code"
    return Order(name, line(_LONG[request.language](path)), (*uploads, (path, request.code)))


# With -c, and not as a script, so that imports look into the working folder, whatever the code's length.
_SHORT: Final[Mapping[str, Callable[[str], tuple[str, ...]]]] = {
    "python": lambda code: ("python3", "-c", code),
    # node takes an argument that begins with a dash, or none, for a missing one.
    "javascript": lambda code: ("node", "-e", f" {code}" if code[:1] in {"", "-"} else code),
    "bash": lambda code: ("bash", "-c", "--", code),
}
_LONG: Final[Mapping[str, Callable[[str], tuple[str, ...]]]] = {
    "python": lambda path: ("python3", "-c", f"exec(compile(open({path!r}, 'rb').read(), '<string>', 'exec'))"),
    "javascript": lambda path: (
        "node",
        "-e",
        f"require('vm').runInThisContext(require('fs').readFileSync('{path}', 'utf8'))",
    ),
    "bash": lambda path: ("bash", "-c", f". {path}"),
}


def _text(data: bytes) -> str | None:
    """What can stand on a command line, as text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _inline(stdin: bytes) -> str | None:
    if not stdin:
        return "-"
    # A pipe holds 64 KiB before anyone reads it; and the code wants room on the same line.
    text = _text(stdin) if len(stdin) <= 8192 else None
    return None if text is None else f"={text}"


class Frames:
    """Cuts what the SDK hands out into frames. Knows at which byte a broken stream has to be taken up again."""

    def __init__(self, name: str) -> None:
        self._head = f"nexus {name}\n"
        self.offset = 0
        """Bytes of complete frames so far."""
        self.restart()

    def restart(self) -> None:
        """A new stream follows, from `offset` on."""
        self._before = ""
        self._buffer = bytearray()
        self._torn = False
        self.headed = False
        """The guest has spoken."""

    def feed(self, text: str) -> Iterator[Frame]:
        """The frames that this piece of output completes."""
        if not self.headed:
            # A login shell may print before it becomes the guest.
            before, found, text = (self._before + text).partition(self._head)
            if not found:
                self._before = before[-_LONGEST_HEAD:]
                return
            self.headed = True
        if self._torn:
            return
        if (foreign := _FOREIGN.search(text)) is not None:
            # No such character comes from the guest, but the SDK puts one where a stream breaks within a character:
            # what follows cannot be read, and will be asked for again.
            self._torn = True
            text = text[: foreign.start()]
        self._buffer += text.encode("latin-1")
        while (newline := self._buffer.find(b"\n", 0, _LONGEST_HEAD)) >= 0:
            head = _HEAD.fullmatch(self._buffer, 0, newline)
            if head is None:
                raise Garbled(f"not a frame: {bytes(self._buffer[:newline])!r}")
            size = newline + 1 + int(head["length"] or 0)
            if len(self._buffer) < size:
                return
            data = bytes(self._buffer[newline + 1 : size])
            frame = _frame(head, data)
            del head, self._buffer[:size]  # a match holds its buffer, which cannot shrink meanwhile
            self.offset += size
            yield frame
        if len(self._buffer) >= _LONGEST_HEAD:
            raise Garbled("a frame without end")


_LONGEST_HEAD: Final = 200
_FOREIGN: Final = re.compile("[^\x00-\xff]")
_HEAD: Final = re.compile(
    rb"(?P<stream>[oe])(?P<length>\d{1,5})|(?P<word>[bdnk])|c(?P<left>\d{1,9})"
    rb"|x(?P<numbers>\d{1,5} [01] [01] \d{1,18} \d{1,18} \d{1,12} \d{1,9})"
)


def _frame(head: re.Match[bytes], data: bytes) -> Frame:
    if head["stream"]:
        return Output("stdout" if head["stream"] == b"o" else "stderr", data)
    if head["numbers"]:
        status, late, cancelled, stdout, stderr, milliseconds, left = map(int, head["numbers"].split())
        return End(status, bool(late), bool(cancelled), stdout, stderr, milliseconds / 1000, left)
    if head["left"]:
        return Word("cancelled", int(head["left"]))
    return Word(_WORDS[head["word"].decode()])
