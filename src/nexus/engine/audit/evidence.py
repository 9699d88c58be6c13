"""What can be verified: a live store, read only, or a dump of one as JSON Lines, without any store."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TextIO

from nexus.domain.errors import InvalidInput
from nexus.domain.ports import EventStore
from nexus.domain.validation import shown
from nexus.engine.audit.canonical import RAW_COLUMNS, RawEvent
from nexus.engine.audit.verifier import Seal

FORMAT: Final = "nexus-audit-dump/1"
_PAGE: Final = 5000
_STATE: Final = RAW_COLUMNS.index("state")


class StoreEvidence:
    """A store as it is now."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    @property
    def installation(self) -> str:
        return self._store.installation

    def events(self, after: int, limit: int) -> Sequence[RawEvent]:
        return self._store.raw(after, limit)

    def seals(self, after: int, limit: int) -> Sequence[Seal]:
        rows = self._store.views.query(
            "SELECT position, event_id, leaf FROM seals WHERE position > :after ORDER BY position LIMIT :limit",
            {"after": after, "limit": limit},
        )
        return [(row["position"], row["event_id"], bytes.fromhex(row["leaf"])) for row in rows]

    def heads(self) -> Sequence[tuple[int, bytes, int]]:
        rows = self._store.views.query("SELECT position, chain, count FROM seal_heads ORDER BY position")
        return [(row["position"], bytes.fromhex(row["chain"]), row["count"]) for row in rows]


class DumpEvidence:
    """A dump that `write_dump` made, held in memory."""

    def __init__(self, path: Path) -> None:
        self._events: list[RawEvent] = []
        self._seals: list[Seal] = []
        self._heads: list[tuple[int, bytes, int]] = []
        self.installation = ""
        try:
            with path.open(encoding="utf-8") as file:
                self._read(file)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
                values[_STATE] = base64.b64decode(values[_STATE], validate=True)
                self._events.append(values)
            elif kind == "seal":
                self._seals.append((values[0], values[1], bytes.fromhex(values[2])))
            elif kind == "head":
                self._heads.append((values[0], bytes.fromhex(values[1]), values[2]))
            elif kind == "installation":
                self.installation = values[0]
            else:
                raise ValueError(f"unknown line {kind!r}")

    def events(self, after: int, limit: int) -> Sequence[RawEvent]:
        first = bisect_right(self._events, after, key=itemgetter(0))
        return self._events[first : first + limit]

    def seals(self, after: int, limit: int) -> Sequence[Seal]:
        first = bisect_right(self._seals, after, key=itemgetter(0))
        return self._seals[first : first + limit]

    def heads(self) -> Sequence[tuple[int, bytes, int]]:
        return self._heads


def dump_lines(store: EventStore) -> Iterator[str]:
    """A whole store as JSON Lines: what `DumpEvidence` reads."""
    evidence = StoreEvidence(store)
    yield json.dumps({"format": FORMAT})
    yield json.dumps(["installation", evidence.installation])
    after = 0
    while events := evidence.events(after, _PAGE):
        for event in events:
            values: list[Any] = list(event)
            values[_STATE] = base64.b64encode(event[_STATE]).decode()
            yield json.dumps(["event", *values], ensure_ascii=False)
        after = events[-1][0]
    after = 0
    while seals := evidence.seals(after, _PAGE):
        yield from (json.dumps(["seal", place, event_id, digest.hex()]) for place, event_id, digest in seals)
        after = seals[-1][0]
    yield from (json.dumps(["head", place, head.hex(), count]) for place, head, count in evidence.heads())
