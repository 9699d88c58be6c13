"""A stretch of the log: whether its events, its seals and its part of the chain are as they were sealed.

The chain is followed from the head that is stored where the stretch begins. That this one is right is what the stretch
before it shows: its end has to be that very head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from nexus.domain import sealing
from nexus.domain.sealing import Written
from nexus.engine.audit.canonical import GENESIS, chained, leaves
from nexus.engine.audit.evidence import Bounds, Evidence, Head, SealedPage, divide

_ID: Final = len(f'["{sealing.FORMAT}","')
"""Where a form has the event's id."""
Link = tuple[str, int]
"""The chain's head somewhere, in hexadecimal, and how many events are sealed up to there."""
Passed = dict[int, Link]
"""By position."""


class Stretch(NamedTuple):
    """What is to be checked, and between which ends of the chain it has to fit."""

    bounds: Bounds
    begin: Link
    end: Link


def stretches(heads: Sequence[Head]) -> list[Stretch]:
    """All up to the last head, each beginning where and as the one before it ends."""
    links: Passed = {position: (chain, count) for position, chain, count in heads}
    found: list[Stretch] = []
    begin = GENESIS.hex(), 0
    for bounds in divide(heads):
        found.append(Stretch(bounds, begin, links[bounds[1]]))
        begin = found[-1].end
    return found


def check(evidence: Evidence, stretch: Stretch, stops: Sequence[int]) -> Passed | None:
    """The chain at those of `stops` that it passes, if the stretch is as it was sealed; else None.

    Raises `StoreError` for a store that cannot be read.
    """
    try:
        walk = _Walk(evidence, stops, bytes.fromhex(stretch.begin[0]), stretch.begin[1])
        walk.go(stretch.bounds)
        return walk.passed if walk.end == stretch.end else None
    except (_Differs, TypeError, ValueError):
        return None  # perhaps a column holds what no event and no seal has


class _Differs(Exception):
    """Something is not as it was sealed."""


class _Walk:
    def __init__(self, evidence: Evidence, stops: Sequence[int], head: bytes, count: int) -> None:
        self._evidence = evidence
        self._stops = stops
        self._head = head
        self._count = count
        self.passed: Passed = {}

    @property
    def end(self) -> Link:
        return self._head.hex(), self._count

    def go(self, bounds: Bounds) -> None:
        """Raises `_Differs` unless the events in there are those of its pages of seals, each and in this order."""
        pages, found = deque(self._evidence.pages(*bounds)), _Found()
        for some in self._evidence.written(*bounds):
            found.add(some)
            self._compare(pages, found)
        if pages or found.leaves:
            raise _Differs

    def _compare(self, pages: deque[SealedPage], found: _Found) -> None:
        """The pages whose events have all been found."""
        while pages and (count := pages[0].total - self._count) <= len(found.leaves):
            if count < 1:
                raise _Differs
            page, (positions, event_ids, hashes) = pages.popleft(), found.take(count)
            if (
                positions[-1] != b"%d" % page.position
                or b"".join(hashes).hex() != page.leaves
                or f"[{b','.join(positions).decode()}]" != page.positions
                or _as_json(event_ids) != page.event_ids
            ):
                raise _Differs
            self._chain(page, positions, hashes)
            if self._head.hex() != page.chain:
                raise _Differs

    def _chain(self, page: SealedPage, positions: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        done = 0
        for stop in self._stops:
            # A checkpoint is made where a page ends; in the middle of one it is only if the log was sealed anew.
            if int(positions[0]) <= stop < page.position and b"%d" % stop in positions:
                end = positions.index(b"%d" % stop) + 1
                self._head = chained(self._head, positions[done:end], hashes[done:end])
                self.passed[stop] = self._head.hex(), self._count + end
                done = end
        self._head = chained(self._head, positions[done:], hashes[done:])
        self._count += len(positions)
        if page.position in self._stops:
            self.passed[page.position] = self.end


class _Found:
    """Positions, ids and hashes of events, in order, until they are taken."""

    def __init__(self) -> None:
        self.positions: list[bytes] = []
        self.event_ids: list[bytes] = []
        self.leaves: list[bytes] = []

    def add(self, some: Written) -> None:
        self.positions += some.positions
        self.event_ids += [form[_ID : form.index(b'"', _ID)] for form in some.forms]
        self.leaves += leaves(some.forms, some.payloads)

    def take(self, count: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """The first ones; they are not here any more."""
        taken = self.positions[:count], self.event_ids[:count], self.leaves[:count]
        del self.positions[:count], self.event_ids[:count], self.leaves[:count]
        return taken


def _as_json(event_ids: Sequence[bytes]) -> str:
    """Of ids up to their first quote. If there is a backslash that may not be their end, and this is no page's."""
    text = b'","'.join(event_ids).decode()
    return f'["{text}"]' if "\\" not in text else ""
