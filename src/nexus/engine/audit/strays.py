"""What became of events that do not stand where they were sealed: the smallest story that explains all of them.

An event that was sealed elsewhere was moved, or merely pushed along by what happened before it; one that was never
sealed was inserted, or took the place of one that is gone; what is gone was removed, or cut off with all after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

from nexus.engine.audit.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Stray:
    """An event id at a place where it, or its seal, stands alone."""

    position: int
    event_id: str
    leaf: str
    """Hexadecimal."""
    kept: int
    """How many events before it stand where they were sealed."""


@dataclass
class Strays:
    """Collected in one walk over events and seals, each in the order of positions."""

    sealed: list[Stray] = field(default_factory=list)
    found: list[Stray] = field(default_factory=list)
    kept: int = 0
    last_kept: int | None = None
    """The last position where the sealed event stands."""

    def keep(self, position: int) -> None:
        self.kept += 1
        self.last_kept = position

    def stray(self, position: int, event_id: str, leaf: str) -> Stray:
        return Stray(position, event_id, leaf, self.kept)

    def explain(self, verdict: Verdict) -> None:
        """Add the findings, and count what is merely not sealed yet."""
        seals: defaultdict[str, list[Stray]] = defaultdict(list)
        for stray in self.sealed:
            seals[stray.event_id].append(stray)
        pairs: list[tuple[Stray, Stray]] = []
        unknown: dict[int, Stray] = {}
        for stray in self.found:
            if seals.get(stray.event_id):
                pairs.append((seals[stray.event_id].pop(0), stray))
            elif stray.position > verdict.sealed_upto:
                verdict.unsealed += 1
            elif stray.position in unknown:
                verdict.add("inserted", stray.position, f"event {stray.event_id} is a second one at its position")
            else:
                unknown[stray.position] = stray
        gone = sorted((one for left in seals.values() for one in left), key=lambda stray: stray.position)
        # An unknown event in the very place of one that is gone: it was overwritten, its id included.
        overwritten = [(stray, unknown.pop(stray.position)) for stray in gone if stray.position in unknown]
        for stray, other in overwritten:
            gone.remove(stray)
            verdict.add("edited", stray.position, f"event {other.event_id} stands where {stray.event_id} was sealed")
        moved, pushed = _moved(pairs, explained=bool(unknown or gone))
        for before, after in moved:
            how = "" if before.leaf == after.leaf else ", and it was edited"
            detail = f"event {after.event_id} was sealed at {before.position} and stands at {after.position}{how}"
            verdict.add("moved", min(before.position, after.position), detail)
        verdict.renumbered = len(pushed)
        for before, after in pushed:
            if before.leaf != after.leaf:
                detail = f"event {after.event_id}, sealed at {before.position}, is not what was sealed"
                verdict.add("edited", after.position, detail)
        for stray in unknown.values():
            verdict.add(
                "inserted", stray.position, f"event {stray.event_id} was never sealed, yet others after it were"
            )
        self._gone(verdict, gone, [before.position for before, _ in (*pairs, *overwritten)])

    def _gone(self, verdict: Verdict, gone: list[Stray], survivors: list[int]) -> None:
        if self.last_kept is not None:
            survivors.append(self.last_kept)
        last = max(survivors, default=None)
        cut = [stray for stray in gone if last is None or stray.position > last]
        if cut:
            end = "is empty" if last is None else f"ends with what was sealed at {last}"
            detail = f"the log {end}; {len(cut)} event(s) that were sealed after it are gone"
            verdict.add("cut", cut[0].position, detail)
        for stray in gone[: len(gone) - len(cut)]:
            verdict.add("removed", stray.position, f"event {stray.event_id} is gone")


def _moved(
    pairs: list[tuple[Stray, Stray]], *, explained: bool
) -> tuple[list[tuple[Stray, Stray]], list[tuple[Stray, Stray]]]:
    """Which of these (as sealed, as found) changed their order, and which only their number.

    The fewest that have to be taken out so that the others are in order have moved; so have all, if nothing else
    explains other numbers.
    """
    moved: list[tuple[Stray, Stray]] = []
    near: list[tuple[Stray, Stray]] = []
    for pair in pairs:
        # Over an event that stands where it was: that one is in order, so this one is not.
        (near if pair[0].kept == pair[1].kept else moved).append(pair)
    near.sort(key=lambda pair: pair[1].position)
    in_order = _longest_rise([before.position for before, _ in near])
    moved += [pair for number, pair in enumerate(near) if number not in in_order]
    pushed = [pair for number, pair in enumerate(near) if number in in_order]
    if not moved and not explained:
        return pushed, []
    return moved, pushed


def _longest_rise(values: list[int]) -> set[int]:
    """Indexes of a longest strictly rising subsequence."""
    ends: list[int] = []
    at: list[int] = []
    before: list[int] = []
    for number, value in enumerate(values):
        length = bisect_left(ends, value)
        before.append(at[length - 1] if length else -1)
        if length == len(ends):
            ends.append(value)
            at.append(number)
        else:
            ends[length] = value
            at[length] = number
    found = set()
    number = at[-1] if at else -1
    while number >= 0:
        found.add(number)
        number = before[number]
    return found
