"""The log against its seals: what was done to it is found and called by its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import rfc8785

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.errors import Conflict, InvalidInput, NotFound
from nexus.engine.audit.canonical import RAW_COLUMNS, canonical, leaf
from nexus.engine.audit.checkpoints import Checkpoint, SigningKey
from nexus.engine.audit.evidence import DumpEvidence, StoreEvidence, dump_lines
from nexus.engine.audit.sealer import PROJECTION, Sealer, head_at
from nexus.engine.audit.verifier import verify
from tests.support.world import ANN, World
from tests.unit.audit.tampering import KINDS, Tamperer

ROUNDS = int(os.environ.get("NEXUS_TAMPER_ROUNDS", "200"))


def busy(folder: Path) -> World:
    """An installation with some history."""
    world = World(folder)
    for number in range(4):
        world.engine.create(ANN, f"s{number}", labels={"who": 'quo"ted \\ ünï'})
        world.engine.run(ANN, f"s{number}", code="1")
    world.engine.stop(ANN, "s1")
    return world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = busy(tmp_path)
    yield world
    world.close()


def checkpoint(world: World, key: SigningKey) -> Checkpoint:
    Sealer(world.store).catch_up()
    position = world.store.views.position(PROJECTION) or 0
    chain, count = head_at(world.store, position)
    return key.sign(world.store.installation, position, count, chain, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.make(tmp_path / "keys" / "audit.pem")


def test_an_untouched_log_is_intact(world: World, key: SigningKey) -> None:
    signed = checkpoint(world, key)
    world.engine.create(ANN, "later")
    verdict = verify(StoreEvidence(world.store), [signed], [key.public])
    assert verdict.intact
    assert (verdict.events, verdict.unsealed) == (len(world.store.read(0)), 3)
    Sealer(world.store).catch_up()
    assert verify(StoreEvidence(world.store), [signed]).unsealed == 0


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_tampering_is_found_and_named(world: World, kind: str) -> None:
    Sealer(world.store).catch_up()
    tamperer = Tamperer(world.folder / "nexus.db", seed=sum(kind.encode()))
    for _ in range(ROUNDS):
        place = KINDS[kind](tamperer)
        verdict = verify(StoreEvidence(world.store))
        found = {finding.kind for finding in verdict.findings}
        allowed = {kind, "removed"} if kind == "inserted" else {kind}
        assert kind in found, (kind, place, verdict.findings)
        assert found <= allowed, (kind, place, verdict.findings)
        assert min(finding.position for finding in verdict.findings) == place
        tamperer.undo()
        assert verify(StoreEvidence(world.store)).intact
    tamperer.close()


def test_a_backup_that_was_put_back_is_found_by_a_checkpoint(tmp_path: Path, key: SigningKey) -> None:
    world = busy(tmp_path / "live")
    Sealer(world.store).catch_up()
    world.store._store.close()
    shutil.copytree(tmp_path / "live", tmp_path / "backup")
    world = World(tmp_path / "live")
    world.engine.create(ANN, "after the backup")
    signed = checkpoint(world, key)
    world.close()
    restored = SQLiteStore(tmp_path / "backup" / "nexus.db")
    assert verify(StoreEvidence(restored)).intact
    assert [finding.kind for finding in verify(StoreEvidence(restored), [signed]).findings] == ["rolled_back"]
    restored.close()


def test_a_rewritten_history_is_found_by_a_checkpoint(world: World, key: SigningKey) -> None:
    signed = checkpoint(world, key)
    tamperer = Tamperer(world.folder / "nexus.db", seed=5)
    tamperer.edited()
    tamperer._db.executescript("DELETE FROM seals; DELETE FROM seal_heads; DELETE FROM projection_positions")
    tamperer.close()
    Sealer(world.store).catch_up()
    assert verify(StoreEvidence(world.store)).intact
    assert [finding.kind for finding in verify(StoreEvidence(world.store), [signed]).findings] == ["seals_rewritten"]


def test_seals_that_were_touched_are_found(world: World) -> None:
    Sealer(world.store).catch_up()
    tamperer = Tamperer(world.folder / "nexus.db", seed=5)
    tamperer._db.execute("UPDATE seal_heads SET chain = ?", ("0" * 64,))
    assert [finding.kind for finding in verify(StoreEvidence(world.store)).findings] == ["seals_rewritten"]
    tamperer.close()


@pytest.mark.parametrize(
    "change", [{"position": 3}, {"count": 1}, {"chain": "00"}, {"installation": "x"}, {"made_at": "then"}]
)
def test_a_checkpoint_that_was_touched_is_forged(world: World, key: SigningKey, change: dict[str, object]) -> None:
    signed = replace(checkpoint(world, key), **change)  # type: ignore[arg-type]
    assert [finding.kind for finding in verify(StoreEvidence(world.store), [signed]).findings] == ["forged_checkpoint"]


def test_a_checkpoint_by_another_key_is_forged(world: World, key: SigningKey, tmp_path: Path) -> None:
    other = SigningKey.make(tmp_path / "other.pem")
    signed = checkpoint(world, other)
    assert verify(StoreEvidence(world.store), [signed]).intact
    verdict = verify(StoreEvidence(world.store), [signed], [key.public])
    assert [finding.kind for finding in verdict.findings] == ["forged_checkpoint"]


def test_a_dump_verifies_like_the_store(world: World, key: SigningKey, tmp_path: Path) -> None:
    signed = checkpoint(world, key)
    dump = tmp_path / "dump.jsonl"
    lines = list(dump_lines(world.store))
    dump.write_text("\n".join(lines) + "\n")
    assert verify(DumpEvidence(dump), [signed], [key.public]).intact
    event = next(number for number, line in enumerate(lines) if line.startswith('["event"'))
    dump.write_text("\n".join(lines[:event] + lines[event + 1 :]) + "\n")
    assert [finding.kind for finding in verify(DumpEvidence(dump), [signed]).findings] == ["removed"]
    dump.write_text("[]")
    with pytest.raises(InvalidInput):
        DumpEvidence(dump)


def test_the_canonical_form_is_rfc_8785(world: World) -> None:
    for event in world.store.raw(0):
        facts = dict(zip(RAW_COLUMNS, event, strict=True))
        facts.pop("position")
        text = canonical(event)
        facts["payload_sha256"] = json.loads(text)["payload_sha256"]
        facts.pop("state")
        assert text.encode() == rfc8785.dumps(facts)
    strange = list(world.store.raw(0, 1)[0])
    strange[RAW_COLUMNS.index("actor")] = 'a"\\\x00\x1f\n\u2028é😀'
    facts = {**facts, **dict(zip(RAW_COLUMNS, strange, strict=True))}
    facts.pop("position")
    facts.pop("state")
    facts["payload_sha256"] = json.loads(canonical(strange))["payload_sha256"]
    assert canonical(strange).encode() == rfc8785.dumps(facts)


def test_a_seal_never_changes_its_meaning() -> None:
    """These bytes are in databases out there."""
    event = (
        7,
        "e",
        "sandbox-1",
        1,
        "t",
        1,
        b"{}",
        "2026",
        "2026",
        "user:a",
        "default",
        None,
        "create",
        "c",
        None,
        "cli@host:1",
    )
    assert leaf(event).hex() == "346f9e81eb331f9b89d28d74ef1bab784f734303cc532fda6627c48c8f384665"


def test_keys_are_kept_safe(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.pem"
    made = SigningKey.make(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert SigningKey.load(path).public == made.public
    with pytest.raises(Conflict):
        SigningKey.make(path)
    with pytest.raises(NotFound):
        SigningKey.load(tmp_path / "none.pem")
    path.write_text("nonsense")
    with pytest.raises(InvalidInput):
        SigningKey.load(path)


def test_two_sealers_seal_once(world: World) -> None:
    first, second = Sealer(world.store), Sealer(world.store)
    assert first.catch_up() == len(world.store.read(0))
    assert second.catch_up() == 0
    assert verify(StoreEvidence(world.store)).intact
