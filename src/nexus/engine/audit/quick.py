"""The quick pass: whether events, seals and chain are all as they were sealed. What is not, the thorough one names.

The database writes events down, so that they only have to be hashed, and goes on doing so meanwhile; seals are
compared page by page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from nexus.domain.sealing import Written
from nexus.engine.audit.canonical import GENESIS, chained, leaves
from nexus.engine.audit.evidence import Bounds, Evidence, Head, SealedPage, divide

Told = Callable[[int, int], None]
"""Is told how many events were checked by now, and of how many."""
Passed = dict[int, tuple[str, int]]
"""By position: the chain's head there in hexadecimal, and how many events are sealed up to there."""


def quick(evidence: Evidence, heads: Sequence[Head], stops: Sequence[int], told: Told) -> Passed | None:
    """The chain at the heads and at `stops`, if everything up to the last head is as it was sealed; else None.

    Heads and stops are in the order of positions; the heads' counts are numbers. Raises `StoreError` for a store that
    cannot be read.
    """
    walk = _Walk(evidence, stops)
    try:
        for bounds in divide(heads):
            walk.stretch(bounds)
            told(walk.count, heads[-1][2])
    except _Differs:
        return None
    except (TypeError, ValueError):
        return None  # a column holds what no event and no seal has
    return walk.passed


class _Differs(Exception):
    """Something is not as it was sealed."""


class _Walk:
    def __init__(self, evidence: Evidence, stops: Sequence[int]) -> None:
        self._evidence = evidence
        self._stops = stops
        self._head = GENESIS
        self.count = 0
        self.passed: Passed = {}

    def stretch(self, bounds: Bounds) -> None:
        """Raises `_Differs` unless the events in there are those of its pages of seals, each and in this order."""
        pages, found = deque(self._evidence.pages(*bounds)), _Found()
        for some in self._evidence.written(*bounds):
            found.add(some)
            self._compare(pages, found)
        if pages or found.leaves:
            raise _Differs

    def _compare(self, pages: deque[SealedPage], found: _Found) -> None:
        """The pages whose events have all been found."""
        while pages and (count := pages[0].total - self.count) <= len(found.leaves):
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
                self.passed[stop] = self._head.hex(), self.count + end
                done = end
        self._head = chained(self._head, positions[done:], hashes[done:])
        self.count += len(positions)
        self.passed[page.position] = self._head.hex(), self.count


class _Found:
    """Positions, ids and hashes of events, in order, until they are taken."""

    def __init__(self) -> None:
        self.positions: list[bytes] = []
        self.event_ids: list[bytes] = []
        self.leaves: list[bytes] = []

    def add(self, some: Written) -> None:
        self.positions += some.positions
        self.event_ids += some.event_ids
        self.leaves += leaves(some.forms, some.payloads)

    def take(self, count: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """The first ones; they are not here any more."""
        taken = self.positions[:count], self.event_ids[:count], self.leaves[:count]
        del self.positions[:count], self.event_ids[:count], self.leaves[:count]
        return taken


def _as_json(event_ids: Sequence[bytes]) -> str:
    """Of ids in which nothing has to be escaped; of others it is no JSON, and so no page's."""
    text = b'","'.join(event_ids).decode()
    return f'["{text}"]' if "\\" not in text and text.count('"') == 2 * len(event_ids) - 2 else ""
