"""Several processes verify a long log, one for each processor, each with a reading of its own of the same moment.

Whatever another process does not do, because it cannot be started, or open the store, or died, this one does.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import select
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from nexus.domain.ports import Again
from nexus.engine.audit.evidence import Evidence
from nexus.engine.audit.strand import NUMBER, OPEN, PIPE, numbers, work
from nexus.engine.audit.stretches import Passed, Stretch, check

_WORTH: Final = 75_000
"""Seals from which on other processes help: each takes 0.1 s to start."""
_MOST: Final = 4
"""Processes. On Postgres each has a connection, and keeps a processor of the server busy."""
_PATIENCE: Final = 5.0
"""Seconds that another process, which has nothing more to do, may take to end."""
What = tuple[Sequence[Stretch], Sequence[int]]
"""The stretches, and where they are to say what the chain is."""
Found = tuple[Stretch, Passed | None]


def checked(evidence: Evidence, stretches: Sequence[Stretch], stops: Sequence[int]) -> Generator[Found, None, None]:
    """`check` of each stretch, in any order. Raises `StoreError`."""
    others = 0
    if stretches and stretches[-1].end[1] >= _WORTH:
        others = min(len(os.sched_getaffinity(0)), _MOST) - 1
    again = evidence.again() if others > 0 else None
    if again is None:
        for stretch in stretches:
            yield stretch, check(evidence, stretch, stops)
        return
    left = dict(enumerate(stretches))
    with _Strands(evidence) as strands, os.fdopen(_pipe(left), "rb") as pipe:
        strands.start(again, (stretches, stops), pipe.fileno(), others)
        for number in numbers(pipe.fileno()):
            yield left[number], check(evidence, left[number], stops)
            del left[number]
            for number, found in strands.heard(0):
                yield left.pop(number), found
        while left and strands.running:
            for number, found in strands.heard(None):
                yield left.pop(number), found
        for stretch in left.values():
            yield stretch, check(evidence, stretch, stops)
        strands.end()


def _pipe(left: Iterable[int]) -> int:
    """Holds the numbers of the stretches, as many as it can: 16,000 at least, unless its user has hundreds of pipes.

    Not a file with its one place for all who have it open: Linux lets two at once read the same from one in memory.
    """
    pipe, fill = os.pipe()
    os.set_blocking(fill, False)
    os.write(fill, b"".join(number.to_bytes(NUMBER, "big") for number in left))
    os.close(fill)
    return pipe


class _Strands:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.running: list[_Strand] = []

    def start(self, again: Again, what: What, pipe: int, count: int) -> None:
        with suppress(OSError):  # where there is no room for more processes
            start = _forked if again.forks and _can_fork() else _spawned
            for _ in range(count):
                self.running.append(_Strand(*start(again, what, pipe)))

    def heard(self, timeout: float | None) -> Iterator[tuple[int, Passed | None]]:
        """What they have done, waiting for it for at most so many seconds."""
        for strand in select.select(self.running, [], [], timeout)[0]:
            for said in strand.said():
                if said == OPEN:
                    if self._evidence.same_moment():
                        continue
                elif said is not None:
                    number, found = said
                    yield number, None if found is None else {place: (head, count) for place, (head, count) in found}
                    continue
                # It is gone, or is to go.
                self.running.remove(strand)
                strand.kill()
                break

    def end(self) -> None:
        """There is nothing more to do. Who is not killed closes its connection as it should be."""
        for strand in self.running:
            strand.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for strand in self.running:
            strand.kill()


class _Strand:
    """One process, and what it says. Ctrl-C ends it like this one."""

    def __init__(self, pid: int, said: int) -> None:
        self._pid = pid
        self._said = said
        self._rest = b""
        self.status: int | None = None

    def fileno(self) -> int:
        return self._said

    def said(self) -> Iterator[Any]:
        """What can be read now; None at the end."""
        some = os.read(self._said, 1 << 16)
        *lines, self._rest = (self._rest + some).split(b"\n")
        yield from map(json.loads, lines)
        if not some:
            yield None

    def wait(self) -> None:
        while select.select([self], [], [], _PATIENCE)[0] and os.read(self._said, 1 << 16):
            pass

    def kill(self) -> None:
        os.close(self._said)
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        self.status = os.waitstatus_to_exitcode(status)


def _can_fork() -> bool:
    """Not where other threads may hold locks, which nobody would release in a fork, nor where it would have to wait."""
    sqlite = sys.modules.get("nexus.adapters.stores.sqlite.database")
    return len([*Path("/proc/self/task").iterdir()]) == 1 and not (sqlite and sqlite.is_any_in_use())


def _forked(again: Again, what: What, pipe: int) -> tuple[int, int]:
    """In a few milliseconds, where a new interpreter takes 0.2 s to import psycopg."""
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(said)
            gc.freeze()  # what this process had is not for the fork to tidy up
            work(again.open, what, pipe, say)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(say)
    return pid, said


def _spawned(again: Again, what: What, pipe: int) -> tuple[int, int]:
    told, tell = os.pipe()
    said, say = os.pipe()
    actions = (
        (os.POSIX_SPAWN_DUP2, told, 0),
        (os.POSIX_SPAWN_DUP2, say, 1),
        # What goes wrong in there goes wrong in here too, or is of no interest.
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, pipe, PIPE),
    )
    command = [sys.executable, "-P", "-m", work.__module__]
    try:
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    except OSError:
        for one in (tell, said):
            os.close(one)
        raise
    finally:
        for one in (told, say):
            os.close(one)
    with suppress(BrokenPipeError), os.fdopen(tell, "wb") as stdin:
        pickle.dump((again.open, what), stdin)
    return pid, said
