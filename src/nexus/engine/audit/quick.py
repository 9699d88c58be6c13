"""The quick pass: whether events, seals and chain are all as they were sealed. What is not, the thorough one names.

The database writes events down, so that they only have to be hashed, and goes on doing so meanwhile; seals are
compared page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nexus.domain.sealing import Written
from nexus.engine.audit.canonical import GENESIS, chained, leaf, leaves
from nexus.engine.audit.evidence import FIRST, Bounds, Evidence, Head, SealedPage, divide

Told = Callable[[int], None]
"""Is told how many events were checked by now."""
Passed = dict[int, tuple[str, int]]
"""By position: the chain's head there in hexadecimal, and how many events are sealed up to there."""


def quick(evidence: Evidence, heads: Sequence[Head], stops: Sequence[int], told: Told) -> Passed | None:
    """The chain at the heads and at `stops`, if everything up to the last head is as it was sealed; else None.

    Heads and stops are in the order of positions; the heads' counts are numbers. Raises `StoreError` for a store that
    cannot be read.
    """
    walk = _Walk(evidence, stops, told)
    try:
        for bounds in divide(heads):
            if not walk.stretch(bounds):
                return None
    except (TypeError, ValueError):
        return None  # a column holds what no event and no seal has
    return walk.passed


class _Walk:
    def __init__(self, evidence: Evidence, stops: Sequence[int], told: Told) -> None:
        self._evidence = evidence
        self._stops = stops
        self._told = told
        self._head = GENESIS
        self._count = 0
        self.passed: Passed = {}

    def stretch(self, bounds: Bounds) -> bool:
        """Whether the events in there are those of its pages of seals, each and in this order."""
        pages = list(self._evidence.pages(*bounds))
        found = _Found(self._evidence, bounds)
        start = 0
        for page in pages:
            end = start + page.total - self._count
            if not start < end <= len(found.leaves) or not found.are_sealed(page, start, end):
                return False
            self._chain(page, found.positions[start:end], found.leaves[start:end])
            if self._head.hex() != page.chain:
                return False
            start = end
        self._told(self._count)
        return start == len(found.leaves)

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
        self.passed[page.position] = self._head.hex(), self._count


class _Found:
    """Positions, ids and hashes of the events in a stretch of the log."""

    def __init__(self, evidence: Evidence, bounds: Bounds) -> None:
        self.positions: list[bytes] = []
        self.event_ids: list[bytes] = []
        self.leaves: list[bytes] = []
        unclear: list[tuple[int, int]] = []
        for some in evidence.written(*bounds):
            if not _is_clear(some):
                unclear.append((len(self.leaves), len(some.forms)))
            self.positions += some.positions
            self.event_ids += some.event_ids
            self.leaves += leaves(some.forms, some.payloads)
        for start, count in unclear:
            after, upto = int(self.positions[start]) - 1, int(self.positions[start + count - 1])
            again = [leaf(event) for event in evidence.events(max(after, FIRST), upto)]
            self.leaves[start : start + count] = again

    def are_sealed(self, page: SealedPage, start: int, end: int) -> bool:
        """Whether the events from `start` to `end` are the page's."""
        return (
            self.positions[end - 1] == b"%d" % page.position
            and b"".join(self.leaves[start:end]).hex() == page.leaves
            and f"[{b','.join(self.positions[start:end]).decode()}]" == page.positions
            and self._ids(start, end) == page.event_ids
        )

    def _ids(self, start: int, end: int) -> str:
        """As JSON, of ids in which nothing has to be escaped; of others it is none, and so no page's."""
        ids = self.event_ids[start:end]
        text = b'","'.join(ids).decode()
        return f'["{text}"]' if "\\" not in text and text.count('"') == 2 * len(ids) - 2 else ""


def _is_clear(some: Written) -> bool:
    """Whether each form that equals a sealed one is its event's own: see `Written.exact`."""
    return some.exact or b"\\" not in b"".join(some.forms)
