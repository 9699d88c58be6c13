"""The verifier: holds the log against its seals, the seals against their chain, and the chain against checkpoints.

It says what is wrong and where: an edited, removed, inserted or moved event, a cut tail, a store that is older than a
checkpoint, a checkpoint that is not what its signer signed, seals that were rewritten. A quick pass tells whether
everything is as it was sealed; only where it is not, a second one looks at each event and finds out what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nexus.domain.errors import InvalidInput
from nexus.engine.audit.canonical import GENESIS, RawEvent, chain_placed, leaf, link
from nexus.engine.audit.checkpoints import Checkpoint, public_key
from nexus.engine.audit.evidence import FIRST, LAST, Evidence, Head, Seal
from nexus.engine.audit.strays import Strays
from nexus.engine.audit.stretches import WORTH, Reopen, divide, each
from nexus.engine.audit.verdict import CANNOT_BE_DETECTED, Finding, Kind, Verdict

__all__ = ["CANNOT_BE_DETECTED", "Finding", "Kind", "Verdict", "verify"]

_NEVER: Final = 1 << 63


def verify(
    evidence: Evidence,
    checkpoints: Iterable[Checkpoint] = (),
    trusted: Sequence[str] = (),
    *,
    reopen: Reopen | None = None,
) -> Verdict:
    """Verify everything. `trusted` are public keys; without any, a checkpoint's own key is believed.

    `reopen` opens the same store once more. With it, which has to be picklable, other processes help with a long log.
    """
    verdict = Verdict(installation=evidence.installation, trusted_keys=len(trusted))
    genuine = [one for one in checkpoints if _is_genuine(verdict, one, trusted)]
    heads = {head[0]: head for head in evidence.heads()}
    chain = _quick(evidence, verdict, heads, genuine, reopen)
    if chain is None:
        chain = _thorough(evidence, verdict, heads, genuine)
    for checkpoint in genuine:
        _compare(verdict, checkpoint, chain)
    verdict.findings.sort(key=lambda finding: finding.position)
    return verdict


# --- the quick pass --------------------------------------------------------------------------------------------------
def _quick(
    evidence: Evidence,
    verdict: Verdict,
    heads: Mapping[int, Head],
    checkpoints: Sequence[Checkpoint],
    reopen: Reopen | None,
) -> dict[int, tuple[str, int]] | None:
    """The chain where it is compared with checkpoints, if log and seals are intact; else None, and nothing is said."""
    if any(type(head[2]) is not int for head in heads.values()):
        return None
    ordered = sorted(heads.values())
    bounds = divide(ordered) if ordered and ordered[-1][2] >= WORTH else divide(ordered, LAST)
    stops = {one.to_bytes(8, "big", signed=True): one for one in heads}
    stops |= {one.position.to_bytes(8, "big"): one.position for one in checkpoints if 0 <= one.position <= LAST}
    chain, count, last = GENESIS, 0, bounds[-1][1] if bounds else FIRST
    passed: dict[int, tuple[str, int]] = {}
    for run in each(evidence, bounds, reopen if len(bounds) > 1 else None):
        if run is None:
            return None
        chain, found = chain_placed(chain, run, stops)
        for number, head in found:
            place = (number - 1) * 40
            passed[stops[run[place : place + 8]]] = head.hex(), count + number
        count += len(run) // 40
    if any(passed.get(position) != (head[1], head[2]) for position, head in heads.items()):
        return None
    # What has no seal, or no event, and is not behind the last head, would be missing from what was chained.
    unsealed, more_seals = evidence.counts(last) if bounds else evidence.counts()
    if more_seals or evidence.counts() != (count + unsealed, count):
        return None
    verdict.unsealed = unsealed
    verdict.events, verdict.seals, verdict.heads = count + verdict.unsealed, count, len(heads)
    verdict.sealed_upto = last if bounds else 0
    return passed


# --- the thorough pass -----------------------------------------------------------------------------------------------
def _thorough(
    evidence: Evidence, verdict: Verdict, heads: Mapping[int, Head], checkpoints: Sequence[Checkpoint]
) -> dict[int, tuple[str, int]]:
    """One walk over events and seals side by side, by position; the chain is recomputed from the seals."""
    strays = Strays()
    chain, count = GENESIS, 0
    stops = {*heads, *(checkpoint.position for checkpoint in checkpoints)}
    passed: dict[int, tuple[str, int]] = {}
    events, seals = evidence.events(lenient=True), evidence.seals()
    event, seal = next(events, None), next(seals, None)
    while event is not None or seal is not None:
        place = min(event[0] if event is not None else _NEVER, seal[0] if seal is not None else _NEVER)
        if seal is not None and seal[0] == place:
            chain, count = link(chain, place, _bytes(seal[2])), count + 1
            verdict.sealed_upto = place
            if place in stops:
                passed[place] = chain.hex(), count
            sealed, seal = seal, next(seals, None)
        else:
            sealed = None
        if event is not None and event[0] == place:
            verdict.events += 1
            _place(verdict, strays, event, sealed)
            event = next(events, None)
        elif sealed is not None:
            strays.sealed.append(strays.stray(place, sealed[1], sealed[2]))
    verdict.seals, verdict.heads = count, len(heads)
    _check_heads(verdict, heads, passed)
    strays.explain(verdict)
    return passed


def _place(verdict: Verdict, strays: Strays, event: RawEvent, sealed: Seal | None) -> None:
    place, event_id, digest = event[0], str(event[1]), _leaf(event)
    if sealed is None:
        strays.found.append(strays.stray(place, event_id, digest))
    elif digest == sealed[2]:
        strays.keep(place)
        if event_id != sealed[1]:
            verdict.add("seals_rewritten", place, "the seal names another event than the one that it fits")
    elif event_id == sealed[1]:
        strays.keep(place)
        verdict.add("edited", place, f"event {event_id} ({event[4]}) is not what was sealed")
    else:
        strays.sealed.append(strays.stray(place, sealed[1], sealed[2]))
        strays.found.append(strays.stray(place, event_id, digest))


def _leaf(event: RawEvent) -> str:
    try:
        return leaf(event).hex()
    except (TypeError, ValueError):
        return ""  # a column holds what no event has


def _bytes(digest: object) -> bytes:
    try:
        return bytes.fromhex(str(digest))
    except ValueError:
        return b""


def _check_heads(verdict: Verdict, heads: Mapping[int, Head], passed: Mapping[int, tuple[str, int]]) -> None:
    for position, (_, chain, count) in sorted(heads.items()):
        if position not in passed:
            verdict.add("seals_rewritten", position, "the seal of a stored head of the chain is missing")
        elif passed[position] != (chain, count):
            verdict.add("seals_rewritten", position, "the seals up to here do not give the head that was stored")
    if verdict.sealed_upto and verdict.sealed_upto not in heads:
        verdict.add("seals_rewritten", verdict.sealed_upto, "the head of the chain after the last seal is missing")


# --- checkpoints -----------------------------------------------------------------------------------------------------
def _is_genuine(verdict: Verdict, checkpoint: Checkpoint, trusted: Sequence[str]) -> bool:
    verdict.checkpoints += 1
    if not any(_is_signed_by(checkpoint, key) for key in trusted or (checkpoint.public_key,)):
        verdict.add("forged_checkpoint", checkpoint.position, "no trusted key signed this checkpoint as it is")
        return False
    if checkpoint.installation != verdict.installation:
        verdict.add("forged_checkpoint", checkpoint.position, f"it is of installation {checkpoint.installation}")
        return False
    return True


def _is_signed_by(checkpoint: Checkpoint, key: str) -> bool:
    try:
        return checkpoint.is_authentic(public_key(key))
    except InvalidInput:
        return False


def _compare(verdict: Verdict, checkpoint: Checkpoint, passed: Mapping[int, tuple[str, int]]) -> None:
    place, made = checkpoint.position, f"the checkpoint of {checkpoint.made_at}"
    if place > verdict.sealed_upto:
        detail = f"{made} knows {checkpoint.count} events up to {place}; this store is an older one"
        verdict.add("rolled_back", verdict.sealed_upto, detail)
    elif (checkpoint.chain, checkpoint.count) != passed.get(place, (GENESIS.hex(), 0)):
        detail = f"{made} has another history: the seals were rewritten, or an older store was put back and went on"
        verdict.add("seals_rewritten", place, detail)
