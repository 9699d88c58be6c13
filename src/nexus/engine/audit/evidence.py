"""What can be verified: a store at one moment, or a dump of one as JSON Lines, without any store."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Protocol, TextIO, TypeVar

from nexus.domain.errors import InvalidInput
from nexus.domain.ports import Reading
from nexus.domain.validation import shown
from nexus.engine.audit.canonical import RAW_COLUMNS, RawEvent

T = TypeVar("T", bound=Sequence[Any])

FORMAT: Final = "nexus-audit-dump/1"
_EVENTS: Final = f"SELECT {', '.join(RAW_COLUMNS)} FROM events"  # noqa: S608 - of names in this code
_SEALED: Final = (
    f"SELECT {', '.join(f'e.{name}' for name in RAW_COLUMNS)}, s.leaf FROM events e"  # noqa: S608 - likewise
    " JOIN seals s ON s.position = e.position AND s.event_id = e.event_id"
    " WHERE e.position > :after AND e.position <= :upto ORDER BY e.position"
)
_COUNTS: Final = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM seals)"
_COUNTS_AFTER: Final = (
    "SELECT (SELECT count(*) FROM events WHERE position > :after), (SELECT count(*) FROM seals WHERE position > :after)"
)
_STATE: Final = RAW_COLUMNS.index("state")

FIRST: Final = -(1 << 63)
LAST: Final = (1 << 63) - 1
"""The least and the highest position that a database can hold."""

Seal = tuple[int, str, str]
"""Position, event id, leaf in hexadecimal."""
Head = tuple[int, str, int]
"""Position, chain in hexadecimal, count: after each sealed page."""


class Evidence(Protocol):
    """What is verified. Everything comes in the order of positions, and all of it is of one moment."""

    @property
    def installation(self) -> str: ...

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        """after < position <= upto. `lenient`: see `Reading.rows`."""
        ...

    def seals(self, after: int = FIRST, upto: int = LAST) -> Iterator[Seal]: ...

    def sealed(self, after: int = FIRST, upto: int = LAST) -> Iterator[Sequence[Any]]:
        """Events that have a seal with their position and id, each with the leaf that it has as a last column."""
        ...

    def counts(self, after: int | None = None) -> tuple[int, int]:
        """How many events there are, and how many seals, after a position."""
        ...

    def heads(self) -> Sequence[Head]: ...


class LogEvidence:
    """A store's log and seals."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    @property
    def installation(self) -> str:
        return self._reading.installation

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        return self._rows(_EVENTS, after, upto, lenient)

    def seals(self, after: int = FIRST, upto: int = LAST) -> Iterator[Seal]:
        found: Iterator[Any] = self._rows("SELECT position, event_id, leaf FROM seals", after, upto, True)
        return found

    def sealed(self, after: int = FIRST, upto: int = LAST) -> Iterator[Sequence[Any]]:
        return self._reading.rows(_SEALED, {"after": after, "upto": upto})

    def counts(self, after: int | None = None) -> tuple[int, int]:
        rows = self._reading.rows(_COUNTS) if after is None else self._reading.rows(_COUNTS_AFTER, {"after": after})
        for events, seals in rows:
            return events, seals
        return 0, 0

    def heads(self) -> Sequence[Head]:
        found: Iterator[Any] = self._rows("SELECT position, chain, count FROM seal_heads", FIRST, LAST, True)
        return list(found)

    def _rows(self, select: str, after: int, upto: int, lenient: bool) -> Iterator[Sequence[Any]]:
        statement = f"{select} WHERE position > :after AND position <= :upto ORDER BY position"
        return self._reading.rows(statement, {"after": after, "upto": upto}, lenient=lenient)


class DumpEvidence:
    """A dump that `dump_lines` made, held in memory."""

    def __init__(self, path: Path) -> None:
        """Raises `InvalidInput` for anything else."""
        self._events: list[RawEvent] = []
        self._seals: list[Seal] = []
        self._heads: list[Head] = []
        self.installation = ""
        try:
            with path.open(encoding="utf-8") as file:
                self._read(file)
            for rows in (self._events, self._seals, self._heads):
                rows.sort(key=itemgetter(0))
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise InvalidInput(
                f"{shown(str(path))} is not an audit dump: {type(error).__name__}",
                hint="`nexus audit dump` writes one.",
                field="offline",
            ) from None

    def _read(self, file: TextIO) -> None:
        if json.loads(file.readline())["format"] != FORMAT:
            raise ValueError("another format")
        for line in file:
            kind, *values = json.loads(line)
            if kind == "event":
                _check(values, len(RAW_COLUMNS))
                if type(values[_STATE]) is str:
                    values[_STATE] = base64.b64decode(values[_STATE], validate=True)
                self._events.append(values)
            elif kind == "seal":
                _check(values, 3)
                self._seals.append((values[0], values[1], values[2]))
            elif kind == "head":
                _check(values, 3)
                self._heads.append((values[0], values[1], values[2]))
            elif kind == "installation":
                self.installation = values[0]
            else:
                raise ValueError(f"unknown line {kind!r}")

    def events(self, after: int = FIRST, upto: int = LAST, *, lenient: bool = False) -> Iterator[RawEvent]:
        return _between(self._events, after, upto)

    def seals(self, after: int = FIRST, upto: int = LAST) -> Iterator[Seal]:
        return _between(self._seals, after, upto)

    def sealed(self, after: int = FIRST, upto: int = LAST) -> Iterator[Sequence[Any]]:
        leaves = {seal[:2]: seal[2] for seal in self.seals(after, upto)}
        for event in self.events(after, upto):
            known = leaves.get((event[0], event[1]))
            if known is not None:
                yield [*event, known]

    def counts(self, after: int | None = None) -> tuple[int, int]:
        first = FIRST if after is None else after
        return sum(1 for _ in self.events(first)), sum(1 for _ in self.seals(first))

    def heads(self) -> Sequence[Head]:
        return self._heads


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
    for seal in evidence.seals():
        yield json.dumps(["seal", *seal])
    for head in evidence.heads():
        yield json.dumps(["head", *head])
