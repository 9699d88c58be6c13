"""A thousand random tamperings of each kind: each is found, called by its name, and nothing else is said."""

from __future__ import annotations

import os

import pytest

from nexus.engine.audit import evidence as evidences
from nexus.engine.audit.checkpoints import SigningKey
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.verifier import verify
from tests.support.world import World
from tests.unit.audit.tampering import KINDS, SeenFromWithin, Session, Tamperer, sealed_story

ROUNDS = int(os.environ.get("NEXUS_TAMPER_ROUNDS", "1000"))
SEED = os.environ.get("NEXUS_TAMPER_SEED", "")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_tampering_is_found_and_named(
    world: World, tampering: Session, key: SigningKey, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the log is taken in one stretch, as a short one is, or in several."""
    signed = sealed_story(world, key)
    tamperer = Tamperer(tampering, signed, key, f"{kind} {SEED}")
    installation = world.store.installation
    evidence = LogEvidence(SeenFromWithin(tampering, installation))
    tampering.begin()
    assert verify(evidence, [signed], [key.public]).intact
    tampering.rollback()
    for number in range(ROUNDS):
        monkeypatch.setattr(evidences, "_LEAST", (1, 8, 2000)[number % 3])
        tampering.begin()
        done = KINDS[kind](tamperer)
        verdict = verify(evidence, [done.checkpoint or signed], [key.public])
        tampering.rollback()
        found = verdict.findings
        assert {finding.kind for finding in found} == {kind}, (number, done, found)
        assert found[0].position == done.position, (number, done, found)
        assert done.findings == len(found), (number, done, found)
    tampering.begin()
    assert verify(evidence, [signed], [key.public]).intact
    tampering.rollback()
