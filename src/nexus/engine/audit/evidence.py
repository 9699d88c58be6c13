"""What can be verified: a store at one moment, or a dump of one as JSON Lines, without any store."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TextIO, TypeVar

from nexus.domain.errors import InvalidInput
from nexus.domain.ports import Again, Reading
from nexus.domain.sealing import Written
from nexus.domain.validation import shown
from nexus.engine.audit.canonical import RAW_COLUMNS, RawEvent, canonical

T = TypeVar("T", bound=Sequence[Any])

FORMAT: Final = "nexus-audit-dump/1"
_EVENTS: Final = f"SELECT {', '.join(RAW_COLUMNS)} FROM events"  # noqa: S608 - of names in this code
_PAGES: Final = "SELECT position, count, chain, positions, event_ids, leaves FROM seals"
_HEADS: Final = "SELECT position, chain, count FROM seals"
_COUNT: Final = "SELECT count(*) FROM events WHERE position > :after"
_STATE: Final = RAW_COLUMNS.index("state")
_MANY: Final = 1000
_STRETCH: Final = 25_000
"""Events whose seals are in memory at once, about."""
_LEAST: Final = 2_000
_STEPS: Final = 8
"""A stretch is at most this part of what is left, so that processes that share them end at about the same time."""

FIRST: Final = -(1 << 63)
LAST: Final = (1 << 63) - 1
"""The least and the highest position that a database can hold."""

Seal = tuple[int, str, str]
"""Position, event id, leaf in hexadecimal."""
Head = tuple[int, str, int]
"""Position, chain in hexadecimal, count: after each sealed page."""
Bounds = tuple[int, int]
"""after < position <= upto."""


def divide(heads: Sequence[Head]) -> list[Bounds]:
    """Stretches that end at a head of the chain, by what the heads say."""
    found: list[Bounds] = []
    after, taken = FIRST, 0
    in_all = heads[-1][2] if heads and type(heads[-1][2]) is int else 0
    for position, _, count in heads:
        if type(count) is not int or count - taken >= max(_LEAST, min(_STRETCH, (in_all - taken) // _STEPS)):
            found.append((after, position))
            after, taken = position, count if type(count) is int else 0
    if heads and after != heads[-1][0]:
        found.append((after, heads[-1][0]))
    return found


class SealedPage(NamedTuple):
    """Some seals as they are stored; `nexus.projections.tables.SEALS` says what is what. Any of it may be untrue."""

    position: int
    total: int
    """How many events are sealed up to its end."""
    chain: str
    positions: str
    event_ids: str
    leaves: str

    def seals(self) -> list[Seal]:
        """One by one; none where they cannot be told from each other."""
        try:
            positions, event_ids = json.loads(self.positions), json.loads(self.event_ids)
            leaves = [self.leaves[start : start + 64] for start in range(0, len(self.leaves), 64)]
            if {*map(type, positions)} != {int} or {type(self.leaves), *map(type, event_ids)} != {str}:
                return []
            if len(self.leaves) % 64:
                return []
            return list(zip(positions, event_ids, leaves, strict=True))
        except (TypeError, ValueError, RecursionError):
            return []


class Evidence(Protocol):
    """What is verified. Everything comes in the order of positions, and all of it is of one moment."""

    @property
    def installation(self) -> str: ...

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        """after < position <= upto. `lenient`: see `Reading.rows`."""
        ...

    def written(self, after: int = FIRST, upto: int = LAST) -> Iterator[Written]:
        """The same events, written down: see `Reading.written`."""
        ...

    def pages(self, after: int = FIRST, upto: int = LAST) -> Iterator[SealedPage]: ...

    def count(self, after: int = FIRST) -> int:
        """How many events there are after a position."""
        ...

    def heads(self) -> Sequence[Head]: ...

    def again(self) -> Again | None:
        """See `Reading.again`; what it opens is evidence as `LogEvidence` has it."""
        ...

    def same_moment(self) -> bool:
        """See `Reading.same_moment`."""
        ...


class LogEvidence:
    """A store's log and seals."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @property
    def installation(self) -> str:
        return self._reading.installation

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        return self._rows(_EVENTS, after, upto, lenient)

    def written(self, after: int = FIRST, upto: int = LAST) -> Iterator[Written]:
        return self._reading.written(after, upto)

    def pages(self, after: int = FIRST, upto: int = LAST) -> Iterator[SealedPage]:
        return (SealedPage(*row) for row in self._rows(_PAGES, after, upto, True))

    def count(self, after: int = FIRST) -> int:
        return next((events for (events,) in self._reading.rows(_COUNT, {"after": after})), 0)

    def heads(self) -> Sequence[Head]:
        found: Iterator[Any] = self._rows(_HEADS, FIRST, LAST, True)
        return list(found)

    def again(self) -> Again | None:
        return self._reading.again()

    def same_moment(self) -> bool:
        return self._reading.same_moment()

    def _rows(self, select: str, after: int, upto: int, lenient: bool) -> Iterator[Sequence[Any]]:
        statement = f"{select} WHERE position > :after AND position <= :upto ORDER BY position"
        return self._reading.rows(statement, {"after": after, "upto": upto}, lenient=lenient)


class DumpEvidence:
    """A dump that `dump_lines` made, held in memory."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidInput` for anything else."""
        self._events: list[RawEvent] = []
        self._pages: list[SealedPage] = []
        self.installation = ""
        self._line = 1
        try:
            with path.open(encoding="utf-8") as file:
                self._read(file)
            for rows in (self._events, self._pages):
                rows.sort(key=itemgetter(0))
        except OSError as error:
            raise InvalidInput(
                f"The dump {shown(str(path))} cannot be read: {error.strerror}", field="offline"
            ) from None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise InvalidInput(
                f"{shown(str(path))} is not an audit dump: line {self._line} is none of it",
                hint="`nexus audit dump` writes one.",
                field="offline",
            ) from None

    def _read(self, file: TextIO) -> None:
        if json.loads(file.readline())["format"] != FORMAT:
            raise ValueError("another format")
        for line in file:
            self._line += 1
            kind, *values = json.loads(line)
            if kind == "event":
                _check(values, len(RAW_COLUMNS))
                if type(values[_STATE]) is str:
                    values[_STATE] = base64.b64decode(values[_STATE], validate=True)
                self._events.append(values)
            elif kind == "seals":
                _check(values, len(SealedPage._fields))
                self._pages.append(SealedPage(*values))
            elif kind == "installation":
                self.installation = values[0]
            else:
                raise ValueError(f"unknown line {kind!r}")

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        return _between(self._events, after, upto)

    def written(self, after: int = FIRST, upto: int = LAST) -> Iterator[Written]:
        rows = self.events(after, upto)
        while page := list(islice(rows, _MANY)):
            forms = [canonical(event).encode("utf-8", "surrogatepass") for event in page]
            positions = [b"%d" % event[0] for event in page]
            yield Written(positions, forms, [event[_STATE] for event in page])

    def pages(self, after: int = FIRST, upto: int = LAST) -> Iterator[SealedPage]:
        return _between(self._pages, after, upto)

    def count(self, after: int = FIRST) -> int:
        return sum(1 for _ in self.events(after))

    def heads(self) -> Sequence[Head]:
        return [(page.position, page.chain, page.total) for page in self._pages]

    def again(self) -> None:
        """In memory: no other process has it."""

    def same_moment(self) -> bool:
        return True


def _check(values: list[Any], count: int) -> None:
    if len(values) != count or type(values[0]) is not int:
        raise ValueError("a line of another shape")


def _between(rows: list[T], after: int, upto: int) -> Iterator[T]:
    place = itemgetter(0)
    return iter(rows[bisect_right(rows, after, key=place) : bisect_right(rows, upto, key=place)])


def dump_lines(evidence: Evidence) -> Iterator[str]:
    """A whole store as JSON Lines: what `DumpEvidence` reads."""
    yield json.dumps({"format": FORMAT})
    yield json.dumps(["installation", evidence.installation])
    for event in evidence.events(lenient=True):
        values: list[Any] = list(event)
        state = values[_STATE]
        # What is no payload, and can only come from tampering, is told as what no payload is.
        values[_STATE] = base64.b64encode(state).decode() if type(state) is bytes else [state]
        yield json.dumps(["event", *values], default=lambda value: {"bytes": value.hex()})
    for bounds in divide(evidence.heads()):
        for page in evidence.pages(*bounds):
            yield json.dumps(["seals", *page], default=lambda value: {"bytes": value.hex()})
