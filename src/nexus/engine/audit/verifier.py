"""The verifier: holds the log against its seals, the seals against their chain, and the chain against checkpoints.

It says what is wrong and where: an edited, removed, inserted or moved event, a cut tail, a store that is older than a
checkpoint, a checkpoint that is not what its signer signed, seals that were rewritten. A quick pass tells whether
everything is as it was sealed; only where it is not, a second one looks at each event and finds out what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

from nexus.domain.errors import InvalidInput
from nexus.engine.audit.canonical import GENESIS, RawEvent, leaf, link
from nexus.engine.audit.checkpoints import Checkpoint, public_key
from nexus.engine.audit.evidence import FIRST, Bounds, Evidence, Head, Seal, divide
from nexus.engine.audit.quick import Told, quick
from nexus.engine.audit.strays import Strays
from nexus.engine.audit.stretches import Passed
from nexus.engine.audit.verdict import CANNOT_BE_DETECTED, Finding, Kind, Verdict

__all__ = ["CANNOT_BE_DETECTED", "Finding", "Kind", "Verdict", "verify"]

_NEVER: Final = 1 << 63
_SOME: Final = 10_000
"""Events after which the thorough pass says how far it is."""


def verify(
    evidence: Evidence, checkpoints: Iterable[Checkpoint] = (), trusted: Sequence[str] = (), *, told: Told | None = None
) -> Verdict:
    """Verify everything. `trusted` are public keys; without any, a checkpoint's own key is believed.

    `told` hears now and then how many events were checked, and of how many; from the beginning again where something
    is wrong, and each event is looked at by itself.
    """
    verdict = Verdict(installation=evidence.installation, trusted_keys=len(trusted))
    genuine = [one for one in checkpoints if _is_genuine(verdict, one, trusted)]
    heads = sorted(evidence.heads(), key=itemgetter(0))
    told = told or (lambda *_: None)
    chain = _intact(evidence, verdict, heads, genuine, told)
    if chain is None:
        chain = _thorough(evidence, verdict, heads, genuine, told)
    for checkpoint in genuine:
        _compare(verdict, checkpoint, chain)
    verdict.findings.sort(key=lambda finding: finding.position)
    return verdict


# --- the quick pass --------------------------------------------------------------------------------------------------
def _intact(
    evidence: Evidence, verdict: Verdict, heads: Sequence[Head], checkpoints: Sequence[Checkpoint], told: Told
) -> Passed | None:
    """The chain where it is compared with checkpoints, if log and seals are intact; else None, and nothing is said."""
    if any(type(count) is not int for _, _, count in heads):
        return None
    passed = quick(evidence, heads, sorted({checkpoint.position for checkpoint in checkpoints}), told)
    if passed is None:
        return None
    if heads:
        verdict.sealed_upto, _, verdict.seals = heads[-1]
    verdict.heads = len(heads)
    verdict.unsealed = evidence.count(verdict.sealed_upto) if heads else evidence.count()
    verdict.events = verdict.seals + verdict.unsealed
    return passed


# --- the thorough pass -----------------------------------------------------------------------------------------------
def _thorough(
    evidence: Evidence, verdict: Verdict, heads: Sequence[Head], checkpoints: Sequence[Checkpoint], told: Told
) -> Passed:
    """One walk over events and seals side by side, by position; the chain is recomputed from the seals."""
    strays = Strays()
    chain, count = GENESIS, 0
    all_ = evidence.count()
    stops = {*(head[0] for head in heads), *(checkpoint.position for checkpoint in checkpoints)}
    passed: Passed = {}
    events = evidence.events(lenient=True)
    unreadable: list[Bounds] = []
    seals = _seals(evidence, heads, unreadable)
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
            if verdict.events % _SOME == 0:
                told(verdict.events, all_)
            if sealed is None and any(after < place <= upto for after, upto in unreadable[-1:]):
                verdict.unsealed += 1
            else:
                _place(verdict, strays, event, sealed)
            event = next(events, None)
        elif sealed is not None:
            strays.sealed.append(strays.stray(place, sealed[1], sealed[2]))
    verdict.seals, verdict.heads = count, len(heads)
    _check_heads(verdict, heads, passed)
    strays.explain(verdict)
    return passed


def _seals(evidence: Evidence, heads: Sequence[Head], unreadable: list[Bounds]) -> Iterator[Seal]:
    """Seal by seal. A page that is none goes to `unreadable`, before the seals that come after it."""
    last = FIRST
    for bounds in divide(heads):
        for page in evidence.pages(*bounds):
            seals = page.seals()
            if not seals:
                unreadable.append((last, page.position))
            yield from seals
            last = page.position


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


def _check_heads(verdict: Verdict, heads: Sequence[Head], passed: Passed) -> None:
    for position, chain, count in heads:
        if position not in passed:
            verdict.add("seals_rewritten", position, "the page of seals that should end here cannot be read as one")
        elif passed[position] != (chain, count):
            verdict.add("seals_rewritten", position, "the seals up to here do not give the head that was stored")


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


def _compare(verdict: Verdict, checkpoint: Checkpoint, passed: Passed) -> None:
    place, made = checkpoint.position, f"the checkpoint of {checkpoint.made_at}"
    if place > verdict.sealed_upto:
        detail = f"{made} knows {checkpoint.count} events up to {place}; this store is an older one"
        verdict.add("rolled_back", verdict.sealed_upto, detail)
    elif (checkpoint.chain, checkpoint.count) != passed.get(place, (GENESIS.hex(), 0)):
        detail = f"{made} has another history: the seals were rewritten, or an older store was put back and went on"
        verdict.add("seals_rewritten", place, detail)
