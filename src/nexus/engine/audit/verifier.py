"""The verifier: holds the log against its seals, the seals against their chain, and the chain against checkpoints.

It says what is wrong and where: an edited, removed, inserted or moved event, a cut tail, a store that is older than a
checkpoint, a checkpoint that is not what its signer signed, seals that were rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from nexus.engine.audit.canonical import GENESIS, RawEvent, leaf, link
from nexus.engine.audit.checkpoints import Checkpoint, public_key

Kind = Literal["edited", "removed", "inserted", "moved", "cut", "rolled_back", "forged_checkpoint", "seals_rewritten"]

CANNOT_BE_DETECTED: Final = (
    "changes to events that were not sealed yet when they were made",
    "a rewritten log whose seals were rewritten with it, where no checkpoint was kept outside",
    "untrue events that the program itself wrote",
)
_PAGE: Final = 5000
_MOST: Final = 1000
"""Findings that are kept; more are counted."""

Seal = tuple[int, str, bytes]
"""Position, event id, leaf."""


class Evidence(Protocol):
    """What is verified: a live store, or a dump."""

    @property
    def installation(self) -> str: ...

    def events(self, after: int, limit: int) -> Sequence[RawEvent]: ...

    def seals(self, after: int, limit: int) -> Sequence[Seal]: ...

    def heads(self) -> Sequence[tuple[int, bytes, int]]:
        """(position, chain, count) after each sealed page, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    position: int
    detail: str


@dataclass
class Verdict:
    """What was checked, and what was found."""

    events: int = 0
    sealed_upto: int = 0
    unsealed: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those that are listed."""
    met: set[int] = field(default_factory=set, repr=False)
    """Positions of checkpoints that the chain was compared with."""

    @property
    def intact(self) -> bool:
        return not self.findings

    def add(self, kind: Kind, position: int, detail: str) -> None:
        if len(self.findings) < _MOST:
            self.findings.append(Finding(kind, position, detail))
        else:
            self.more += 1


@dataclass
class _Strays:
    """Events that stand where another was sealed, and sealed events that do not stand where they were."""

    missing: dict[str, int] = field(default_factory=dict)
    unexpected: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    leaves: dict[str, bytes] = field(default_factory=dict)


def verify(evidence: Evidence, checkpoints: Iterable[Checkpoint] = (), trusted: Sequence[str] = ()) -> Verdict:
    """Verify everything. `trusted` are public keys; without any, a checkpoint's own key is believed."""
    verdict = Verdict()
    strays = _Strays()
    wanted = {
        checkpoint.position: checkpoint
        for checkpoint in checkpoints
        if _is_genuine(verdict, checkpoint, evidence.installation, trusted)
    }
    heads = {position: (chain, count) for position, chain, count in evidence.heads()}
    last_event = _walk(evidence, verdict, strays, heads, wanted)
    _sort_out(verdict, strays, last_event)
    for checkpoint in wanted.values():
        _not_reached(verdict, checkpoint)
    verdict.findings.sort(key=lambda finding: finding.position)
    return verdict


def _walk(
    evidence: Evidence,
    verdict: Verdict,
    strays: _Strays,
    heads: dict[int, tuple[bytes, int]],
    wanted: dict[int, Checkpoint],
) -> int:
    """One pass over events and seals side by side; the chain is recomputed from the seals."""
    head, count, last_event = GENESIS, 0, 0
    events, seals = _events(evidence), _seals(evidence)
    event, seal = next(events, None), next(seals, None)
    found_heads: set[int] = set()
    while event is not None or seal is not None:
        place = min(event[0] if event is not None else _NEVER, seal[0] if seal is not None else _NEVER)
        here = event if event is not None and event[0] == place else None
        sealed = seal if seal is not None and seal[0] == place else None
        if sealed is not None:
            head, count = link(head, place, sealed[2]), count + 1
            verdict.sealed_upto = place
            if place in heads:
                found_heads.add(place)
                if heads[place] != (head, count):
                    verdict.add("seals_rewritten", place, "the seals up to here do not give the chain that was stored")
            checkpoint = wanted.get(place)
            if checkpoint is not None:
                verdict.met.add(place)
            if checkpoint is not None and (checkpoint.chain, checkpoint.count) != (head.hex(), count):
                verdict.add("seals_rewritten", place, f"the checkpoint of {checkpoint.made_at} has another history")
            seal = next(seals, None)
        if here is not None:
            verdict.events += 1
            last_event = place
            if sealed is None:
                # Beyond the last seal it is merely not sealed yet.
                if seal is None:
                    verdict.unsealed += 1
                else:
                    strays.unexpected[here[1]] = (place, leaf(here))
            else:
                digest = leaf(here)
                if digest != sealed[2]:
                    _differs(verdict, strays, here, sealed, digest)
            event = next(events, None)
        elif sealed is not None:
            strays.missing[sealed[1]] = place
            strays.leaves[sealed[1]] = sealed[2]
    for position in sorted(set(heads) - found_heads):
        verdict.add("seals_rewritten", position, "the seal of a stored chain head is missing")
    return last_event


def _differs(verdict: Verdict, strays: _Strays, event: RawEvent, seal: Seal, digest: bytes) -> None:
    if event[1] == seal[1]:
        verdict.add("edited", event[0], f"event {event[1]} ({event[4]}) is not what was sealed")
        return
    strays.missing[seal[1]] = seal[0]
    strays.leaves[seal[1]] = seal[2]
    strays.unexpected[event[1]] = (event[0], digest)


def _sort_out(verdict: Verdict, strays: _Strays, last_event: int) -> None:
    for event_id, (place, digest) in strays.unexpected.items():
        before = strays.missing.pop(event_id, None)
        if before is None:
            verdict.add("inserted", place, f"event {event_id} was never sealed, yet others after it were")
        elif strays.leaves[event_id] == digest:
            verdict.add("moved", place, f"event {event_id} was sealed at {before}")
        else:
            verdict.add("moved", place, f"event {event_id} was sealed at {before}, and it was edited")
    cut = sorted(place for place in strays.missing.values() if place > last_event)
    if cut:
        verdict.add(
            "cut", cut[0], f"the log ends at {last_event}; {len(cut)} events that were sealed after it are gone"
        )
    for event_id, place in strays.missing.items():
        if place <= last_event:
            verdict.add("removed", place, f"event {event_id} is gone")


def _is_genuine(verdict: Verdict, checkpoint: Checkpoint, installation: str, trusted: Sequence[str]) -> bool:
    verdict.checkpoints += 1
    keys = trusted or (checkpoint.public_key,)
    if not any(checkpoint.is_authentic(public_key(key)) for key in keys):
        verdict.add("forged_checkpoint", checkpoint.position, "no trusted key signed this checkpoint as it is")
        return False
    if checkpoint.installation != installation:
        verdict.add("forged_checkpoint", checkpoint.position, f"it is of installation {checkpoint.installation}")
        return False
    return True


def _not_reached(verdict: Verdict, checkpoint: Checkpoint) -> None:
    """A genuine checkpoint whose position the walk did not meet."""
    if checkpoint.position > verdict.sealed_upto:
        detail = (
            f"a checkpoint of {checkpoint.made_at} knows {checkpoint.count} events up to {checkpoint.position}; "
            f"this store is an older one"
        )
        verdict.add("rolled_back", verdict.sealed_upto, detail)
    elif checkpoint.position not in verdict.met:
        verdict.add("seals_rewritten", checkpoint.position, f"the checkpoint of {checkpoint.made_at} has no seal")


_NEVER: Final = 1 << 63


def _events(evidence: Evidence) -> Iterator[RawEvent]:
    after = 0
    while page := evidence.events(after, _PAGE):
        yield from page
        after = page[-1][0]


def _seals(evidence: Evidence) -> Iterator[Seal]:
    after = 0
    while page := evidence.seals(after, _PAGE):
        yield from page
        after = page[-1][0]
