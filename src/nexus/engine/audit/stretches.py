"""The quick pass over stretches of the log: whether their events are as they were sealed, on all idle processors.

A stretch that is intact comes back as its seals' positions and leaves, 40 bytes each: what the chain is made of.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import islice
from multiprocessing import get_context
from typing import Final

from nexus.domain.errors import StoreError
from nexus.domain.ports import Reading
from nexus.engine.audit.canonical import leaf, placed, quick_leaves
from nexus.engine.audit.evidence import FIRST, Evidence, Head, LogEvidence

WORTH: Final = 100_000
"""Seals from which on other processes help: each takes a moment to start."""
_STRETCH: Final = 25_000
_PAGE: Final = 1000

Bounds = tuple[int, int]
"""after < position <= upto."""
Reopen = Callable[[], Reading]


def divide(heads: Sequence[Head], least: int = _STRETCH) -> list[Bounds]:
    """Stretches that end at a head of the chain and hold about `least` seals, by what the heads say."""
    found: list[Bounds] = []
    after, taken = FIRST, 0
    for position, _, count in heads:
        if count - taken >= least:
            found.append((after, position))
            after, taken = position, count
    if heads and after != heads[-1][0]:
        found.append((after, heads[-1][0]))
    return found


def check(evidence: Evidence, after: int, upto: int) -> bytes | None:
    """Positions and leaves of a stretch, of all events that have their seal; None if one is not as it was sealed.

    Events without a seal, and seals without an event, are not here: they are missing from the count.
    """
    done: list[bytes] = []
    try:
        rows = evidence.sealed(after, upto)
        while page := list(islice(rows, _PAGE)):
            leaves, wanted = quick_leaves(page), "".join([row[-1] for row in page])
            if b"".join(leaves).hex() != wanted:
                leaves = [leaf(row[:-1]) for row in page]
                if b"".join(leaves).hex() != wanted:
                    return None
            done.append(placed([row[0] for row in page], leaves))
    except (TypeError, ValueError, StoreError):
        return None  # a column holds what no event and no seal has
    return b"".join(done)


def each(evidence: Evidence, bounds: Sequence[Bounds], reopen: Reopen | None) -> Iterator[bytes | None]:
    """`check` for each stretch, in order; by several processes that open the store for themselves, if it helps."""
    workers = min(_idle_processors(), len(bounds), 8)
    if reopen is None or workers < 2:
        for after, upto in bounds:
            yield check(evidence, after, upto)
        return
    done = 0
    pool = ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        for found in pool.map(_opened_and_checked, [reopen] * len(bounds), bounds):
            yield found
            done += 1
    except BrokenProcessPool:
        # There is no room for more processes, say: one does it all.
        yield from each(evidence, bounds[done:], None)
    finally:
        pool.shutdown(cancel_futures=True)


def _idle_processors() -> int:
    """This process's own one among them. Where others keep all of them busy, more processes only cost their start."""
    count = len(os.sched_getaffinity(0))
    return min(count, max(1, round(count + 1 - os.getloadavg()[0])))


def _opened_and_checked(reopen: Reopen, bounds: Bounds) -> bytes | None:
    with closing(reopen()) as reading:
        return check(LogEvidence(reading), *bounds)
