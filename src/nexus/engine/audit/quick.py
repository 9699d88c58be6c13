"""The quick pass: whether events, seals and chain are all as they were sealed. What is not, the thorough one names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from nexus.engine.audit.evidence import Evidence, Head
from nexus.engine.audit.strands import checked
from nexus.engine.audit.stretches import Passed, stretches

Told = Callable[[int, int], None]
"""Is told how many events were checked by now, and of how many."""


def quick(evidence: Evidence, heads: Sequence[Head], stops: Sequence[int], told: Told) -> Passed | None:
    """The chain at `stops`, if everything up to the last head is as it was sealed; else None.

    Heads and stops are in the order of positions; the heads' counts are numbers. Raises `StoreError` for a store that
    cannot be read.
    """
    passed: Passed = {}
    done = 0
    with closing(checked(evidence, stretches(heads), stops)) as found:
        for stretch, some in found:
            if some is None:
                return None
            passed |= some
            done += stretch.end[1] - stretch.begin[1]
            told(done, heads[-1][2])
    return passed
