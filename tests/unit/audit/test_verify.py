"""The log against its seals: what was done to it is found and called by its name."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from nexus.adapters.stores.sqlite import SQLiteReading
from nexus.domain.errors import Conflict, InvalidInput, NotFound
from nexus.domain.values import Principal
from nexus.engine.audit import verifier
from nexus.engine.audit.canonical import GENESIS, RAW_COLUMNS, canonical, leaf, link
from nexus.engine.audit.checkpoints import Checkpoint, SigningKey
from nexus.engine.audit.evidence import DumpEvidence, LogEvidence, dump_lines
from nexus.engine.audit.sealer import PROJECTION, Sealer, head_at
from nexus.engine.audit.verdict import Verdict
from nexus.engine.audit.verifier import verify
from tests.support.world import ANN, World


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


@contextmanager
def evidence(folder: Path) -> Iterator[LogEvidence]:
    reading = SQLiteReading(folder / "nexus.db")
    try:
        yield LogEvidence(reading)
    finally:
        reading.close()


def verified(folder: Path, checkpoints: Sequence[Checkpoint] = (), trusted: Sequence[str] = ()) -> Verdict:
    with evidence(folder) as found:
        return verify(found, checkpoints, trusted)


def kinds(folder: Path, *checkpoints: Checkpoint) -> list[str]:
    return [finding.kind for finding in verified(folder, checkpoints).findings]


@contextmanager
def tampering(folder: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who may write the file, and has dropped its triggers."""
    with closing(sqlite3.connect(folder / "nexus.db")) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        yield database
        database.commit()


def checkpoint(world: World, key: SigningKey) -> Checkpoint:
    Sealer(world.store).catch_up()
    position = world.store.views.position(PROJECTION) or 0
    chain, count = head_at(world.store, position)
    return key.sign(world.store.installation, position, count, chain, "2026-01-01T00:00:00+00:00")


def test_an_untouched_log_is_intact(world: World, key: SigningKey) -> None:
    signed = checkpoint(world, key)
    world.engine.create(ANN, "later")
    verdict = verified(world.folder, [signed], [key.public])
    assert verdict.intact
    assert (verdict.events, verdict.unsealed) == (len(world.store.read(0)), 3)
    Sealer(world.store).catch_up()
    assert verified(world.folder, [signed]).unsealed == 0


def test_a_backup_that_was_put_back_is_found_by_a_checkpoint(tmp_path: Path, key: SigningKey) -> None:
    world = busy(tmp_path / "live")
    Sealer(world.store).catch_up()
    world.store._store.close()
    shutil.copytree(tmp_path / "live", tmp_path / "backup")
    world = World(tmp_path / "live")
    world.engine.create(ANN, "after the backup")
    signed = checkpoint(world, key)
    world.close()
    assert kinds(tmp_path / "backup") == []
    assert kinds(tmp_path / "backup", signed) == ["rolled_back"]


def test_a_rewritten_history_is_found_by_a_checkpoint(world: World, key: SigningKey) -> None:
    signed = checkpoint(world, key)
    with tampering(world.folder) as database:
        database.execute("UPDATE events SET actor = 'user:eve' WHERE position = 4")
        for table in ("seals", "projection_positions"):
            database.execute(f"DELETE FROM {table}")
    Sealer(world.store).catch_up()
    assert kinds(world.folder) == []
    assert kinds(world.folder, signed) == ["seals_rewritten"]


@pytest.mark.parametrize(
    "change",
    [
        "chain = '{0}'",
        "chain = 'no digest'",
        "count = count + 1",
        "count = -1",
        "count = 'many'",
        "position = position - 1",
        "event_ids = replace(event_ids, (SELECT event_id FROM events WHERE position = 3), 'another')",
        "positions = replace(positions, '[1,', '[01,')",
        "positions = replace(positions, '[1,', '[1.0,')",
        "positions = replace(positions, '[1,', '[true,')",
        "positions = '[]'",
        "event_ids = '[' || 1 || ']'",
        "event_ids = 'no list'",
        "leaves = substr(leaves, 2)",
        "leaves = leaves || substr(leaves, 1, 64)",
        "leaves = CAST(leaves AS BLOB)",
        "leaves = CAST(x'ff' AS TEXT)",
    ],
)
@pytest.mark.parametrize("page", ["first", "middle", "last"])
def test_seals_that_were_touched_are_found(world: World, page: str, change: str) -> None:
    """Events whose seals cannot be read any more are not accused of anything: they have not been checked."""
    ends = []
    for number in range(3):
        Sealer(world.store).catch_up()
        ends.append(world.store.head())
        world.engine.create(ANN, f"more{number}")
    end = ends[("first", "middle", "last").index(page)]
    with tampering(world.folder) as database:
        if page != "first":
            change = change.replace("[1,", f"[{end - 2},").replace("position = 3", f"position = {end - 2}")
        done = database.execute(f"UPDATE seals SET {change.format('0' * 64)} WHERE position = {end}")
        assert done.rowcount == 1
    assert set(kinds(world.folder)) == {"seals_rewritten"}


@pytest.mark.parametrize("leaf", ["no digest", "0", '"\\'])
def test_a_seal_that_fits_no_event(world: World, leaf: str) -> None:
    """Nobody can tell whether event or seal was touched: both are said to be wrong."""
    Sealer(world.store).catch_up()
    with tampering(world.folder) as database:
        ((before,),) = database.execute("SELECT leaves FROM seals")
        after = before[:128] + (leaf * 64)[:64] + before[192:]
        database.execute("UPDATE seals SET leaves = CAST(? AS TEXT)", (after.encode("utf-8", "surrogatepass"),))
    assert kinds(world.folder) == ["edited", "seals_rewritten"]


def test_seals_that_are_merely_written_in_another_way_are_the_same(world: World) -> None:
    Sealer(world.store).catch_up()
    with tampering(world.folder) as database:
        database.execute("UPDATE seals SET event_ids = replace(event_ids, ',', ' , ')")
    assert kinds(world.folder) == []


def test_a_page_of_seals_that_is_gone(world: World, key: SigningKey) -> None:
    """Its events were never sealed, it seems. The last page is no more than not sealed yet, but for a checkpoint."""
    Sealer(world.store).catch_up()
    first = world.store.head()
    world.engine.create(ANN, "more")
    signed = checkpoint(world, key)
    with tampering(world.folder) as database:
        database.execute("DELETE FROM seals WHERE position = ?", (first,))
    assert set(kinds(world.folder)) == {"inserted", "seals_rewritten"}
    with tampering(world.folder) as database:
        database.execute("DELETE FROM seals")
    assert kinds(world.folder) == []
    assert kinds(world.folder, signed) == ["rolled_back"]


def test_what_no_column_should_hold(world: World, tmp_path: Path) -> None:
    """A file holds what its writer likes, of any type: it is an edited event, never an error; a dump says the same."""
    Sealer(world.store).catch_up()
    with tampering(world.folder) as database:
        database.execute("CREATE TABLE loose AS SELECT * FROM events")
        database.execute("DROP TABLE events")
        database.execute("ALTER TABLE loose RENAME TO events")
    for column in RAW_COLUMNS[1:]:
        for value in (b"\xff\xfe", "text", 3.5, None, "a\0b", 'a"b', "a\\b"):
            with tampering(world.folder) as database:
                (before,) = database.execute(f"SELECT {column} FROM events WHERE position = 3").fetchone()
                database.execute(f"UPDATE events SET {column} = ? WHERE position = 3", (value,))
            for verdict in (verified(world.folder), verify(dumped(world.folder, tmp_path / "dump"))):
                found = [(finding.kind, finding.position) for finding in verdict.findings]
                assert found == ([("edited", 3)] if before != value else []), (column, value)
            with tampering(world.folder) as database:
                database.execute(f"UPDATE events SET {column} = ? WHERE position = 3", (before,))
    assert kinds(world.folder) == []


def test_text_that_is_none_is_an_edit(world: World) -> None:
    Sealer(world.store).catch_up()
    with tampering(world.folder) as database:
        database.execute("UPDATE events SET actor = CAST(x'75ff' AS TEXT) WHERE position = 3")
    assert kinds(world.folder) == ["edited"]


def test_the_written_form_of_an_escape_is_an_edit(world: World) -> None:
    """Of an actor with a quote, what JSON makes of it is not the same actor: the quick pass must not take it so."""
    strange = Principal(user_id='an"n')
    world.engine.create(strange, "mine")
    Sealer(world.store).catch_up()
    assert kinds(world.folder) == []
    with tampering(world.folder) as database:
        database.execute("UPDATE events SET actor = 'user:an\\\"n' WHERE actor = 'user:an\"n'")
    assert set(kinds(world.folder)) == {"edited"}


def test_checkpoints_hold_for_a_log_that_was_sealed_anew(
    world: World, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages end elsewhere: the quick pass has to find the chain's head in the middle of one."""
    kept = [checkpoint(world, key)]
    for number in range(3):
        world.engine.create(ANN, f"more{number}")
        kept.append(checkpoint(world, key))
    with tampering(world.folder) as database:
        database.execute("DELETE FROM seals")
        database.execute("DELETE FROM projection_positions WHERE projection = ?", (PROJECTION,))
    assert kinds(world.folder, *kept) == ["rolled_back"] * 4
    Sealer(world.store).catch_up()
    wrong = replace(kept[1], position=kept[1].position - 1)
    monkeypatch.setattr(verifier, "_thorough", None)
    assert kinds(world.folder, *kept) == []
    assert kinds(world.folder, *kept, wrong) == ["forged_checkpoint"]
    elsewhere = key.sign(wrong.installation, wrong.position, wrong.count, bytes.fromhex(wrong.chain), wrong.made_at)
    assert kinds(world.folder, *kept, elsewhere) == ["seals_rewritten"]


def test_a_log_that_grows_while_it_is_verified_is_intact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment is verified: events that are appended and sealed between two questions are not missing."""
    Sealer(world.store).catch_up()
    with evidence(world.folder) as found:
        heads, written = found.heads, found.written

        def growing(ask: Callable[..., Any], name: str) -> Callable[..., Any]:
            numbers = itertools.count()

            def grow(*asked: Any) -> Any:
                world.engine.create(ANN, f"{name}{next(numbers)}")
                Sealer(world.store).catch_up()
                return ask(*asked)

            return grow

        monkeypatch.setattr(found, "heads", growing(heads, "one"))
        monkeypatch.setattr(found, "written", growing(written, "two"))
        before = len(world.store.read(0))
        verdict = verify(found)
        assert verdict.intact
        assert (verdict.events, verdict.unsealed) == (before, 0)
    assert verified(world.folder).events > before


def test_it_says_what_was_checked(world: World, key: SigningKey) -> None:
    before = verified(world.folder)
    assert before.summary == f"Nothing checked: {before.events} events, none of them sealed."
    assert before.checked[0].startswith("No event is sealed: nothing was checked.")
    signed = checkpoint(world, key)
    world.engine.create(ANN, "later")
    told = " ".join(verified(world.folder, [signed]).checked)
    assert f"{signed.count} events, up to position {signed.position}, each against its seal" in told
    assert "its head after each of 1 page(s)" in told
    assert "give --key to know whose it is" in told
    assert "Not checked: 3 events" in told
    assert "the signature against the given keys" in " ".join(verified(world.folder, [signed], [key.public]).checked)
    assert "No checkpoint was given" in " ".join(verified(world.folder).checked)


@pytest.mark.parametrize(
    "change",
    [
        {"position": 3},
        {"position": -(1 << 80)},
        {"count": 1},
        {"chain": "00"},
        {"installation": "x"},
        {"made_at": "then"},
        {"public_key": "no key"},
        {"signature": "é"},
    ],
)
def test_a_checkpoint_that_was_touched_is_forged(world: World, key: SigningKey, change: dict[str, object]) -> None:
    signed = replace(checkpoint(world, key), **change)  # type: ignore[arg-type]
    assert kinds(world.folder, signed) == ["forged_checkpoint"]


def test_a_checkpoint_by_another_key_is_forged(world: World, key: SigningKey, tmp_path: Path) -> None:
    other = SigningKey.make(tmp_path / "other.pem")
    signed = checkpoint(world, other)
    assert kinds(world.folder, signed) == []
    verdict = verified(world.folder, [signed], [key.public])
    assert [finding.kind for finding in verdict.findings] == ["forged_checkpoint"]


def test_a_checkpoint_of_another_installation_is_forged(world: World, key: SigningKey, tmp_path: Path) -> None:
    """Signed by the right key, too: whoever has several installations has them sign with one key, perhaps."""
    other = World(tmp_path / "other")
    other.engine.create(ANN, "box")
    signed = checkpoint(other, key)
    other.close()
    Sealer(world.store).catch_up()
    assert kinds(world.folder, signed) == ["forged_checkpoint"]


def dumped(folder: Path, file: Path) -> DumpEvidence:
    with evidence(folder) as found:
        file.write_text("\n".join(dump_lines(found)) + "\n")
    return DumpEvidence(file)


def test_a_dump_verifies_like_the_store(world: World, key: SigningKey, tmp_path: Path) -> None:
    signed = checkpoint(world, key)
    dump = tmp_path / "dump.jsonl"
    assert verify(dumped(world.folder, dump), [signed], [key.public]) == verified(world.folder, [signed], [key.public])
    lines = dump.read_text().splitlines()
    event = next(number for number, line in enumerate(lines) if line.startswith('["event"'))
    dump.write_text("\n".join(lines[:event] + lines[event + 1 :]) + "\n")
    assert [finding.kind for finding in verify(DumpEvidence(dump), [signed]).findings] == ["removed"]
    dump.write_text("\n".join([*lines[:4], "[]"]))
    with pytest.raises(InvalidInput, match="not an audit dump: line 5 is none of it"):
        DumpEvidence(dump)
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        DumpEvidence(tmp_path / "none")


def listed(event: Sequence[Any]) -> list[Any]:
    """What the guide says of the canonical form, in other words."""
    of = dict(zip(RAW_COLUMNS, event, strict=True))
    texts = ("event_id", "originator_id", "topic", "occurred_at", "recorded_at", "actor", "tenant_id", "command")
    missing = (of["agent_id"] is None) + 2 * (of["causation_id"] is None)
    ids = [of["correlation_id"], of["origin"], of["agent_id"] or "", of["causation_id"] or ""]
    return [
        "nexus-event/1",
        *(of[name] for name in texts),
        *ids,
        of["originator_version"],
        of["schema_version"],
        missing,
    ]


def test_the_canonical_form_is_rfc_8785(world: World) -> None:
    events = list(world.store.raw(0))
    strange = list(events[0])
    strange[RAW_COLUMNS.index("actor")] = 'a"\\\x00\x1f\n\u2028é😀'
    strange[RAW_COLUMNS.index("agent_id")] = ""
    for event in (*events, strange):
        assert canonical(event).encode() == rfc8785.dumps(listed(event))


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
    text = (
        '["nexus-event/1","e","sandbox-1","t","2026","2026","user:a","default","create","c","cli@host:1","","",1,1,3]'
    )
    assert canonical(event) == text
    digest = sha256(text.encode() + sha256(b"{}").digest()).digest()
    assert leaf(event) == digest
    assert link(GENESIS, 7, digest) == sha256(bytes(32) + digest + b"7").digest()
    assert leaf(event).hex() == "0630778b8cc08cc45d47ff70dab01c57134197e300a2261838a905e11173cfb0"


def test_no_leaf_is_made_of_what_a_head_is_made_of() -> None:
    """They differ in their length already."""
    least = (1, "", "", 0, "", 0, b"", *[""] * 9)
    longest = b"%d" % -(1 << 63)
    assert len(canonical(least)) + 32 > len(GENESIS) + 32 + len(longest)


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
    assert kinds(world.folder) == []
