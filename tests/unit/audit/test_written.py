"""What a database writes of its events, for the audit, is the canonical form of the very columns. On both stores."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus.domain import sealing
from nexus.domain.sealing import Written
from nexus.domain.values import Principal
from nexus.engine.audit import verifier
from nexus.engine.audit.canonical import RAW_COLUMNS, canonical
from nexus.engine.audit.checkpoints import SigningKey
from nexus.engine.audit.evidence import FIRST, LAST, LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verifier import verify
from tests.support.world import ANN, World
from tests.unit.audit.tampering import SeenFromWithin, Session, sealed_story

HOSTILE = st.text(
    st.sampled_from("\"\\,[]{}:\n\r\t\x01\x1f\x7f '%é\u2028😀nul0") | st.characters(codec="utf-8"), max_size=12
)
TEXT = HOSTILE.map(lambda text: text.replace("\0", "0"))  # which Postgres has none of
PLAIN = st.text(st.sampled_from("az09-_:@.é "), max_size=12)
NUMBER = st.integers(1, 2**31 - 1)
EVENT = st.fixed_dictionaries(
    {
        **dict.fromkeys(sealing.TEXTS[1:], PLAIN | TEXT),
        **dict.fromkeys(sealing.OPTIONAL, st.none() | PLAIN | TEXT),
        **dict.fromkeys(sealing.NUMBERS, NUMBER),
        sealing.PAYLOAD: st.binary(max_size=40).map(lambda some: some.replace(b"\xff", b"\0")),
    }
)
numbers = itertools.count()


def insert(session: Session, event: Mapping[str, Any], position: int | None = None) -> None:
    """Another event like this at the end of the log."""
    ((last,),) = session.run("SELECT coalesce(max(position), 0) FROM events")
    number = next(numbers)
    row = {**event, "event_id": event.get("event_id", f"e{number}"), "position": position or last + 1}
    row["originator_id"] = f"{number}{event['originator_id']}"
    values = [row[name] for name in RAW_COLUMNS]
    session.run(f"INSERT INTO events ({', '.join(RAW_COLUMNS)}) VALUES ({', '.join('?' * len(values))})", values)


def stored(session: Session) -> list[Any]:
    return session.run(f"SELECT {', '.join(RAW_COLUMNS)} FROM events ORDER BY position")


@pytest.mark.parametrize("escaped", [True, False])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, min_size=1, max_size=5))
def test_it_is_the_canonical_form(
    world: World, tampering: Session, escaped: bool, events: list[dict[str, Any]]
) -> None:
    """From an event with a backslash on, every one is escaped."""
    tampering.begin()
    for event in events:
        insert(tampering, event)
    if escaped:
        insert(tampering, {**events[0], "actor": "\\", "state": b""})
    rows = stored(tampering)
    found = Written(*(tuple(itertools.chain(*some)) for some in zip(*tampering.written(FIRST, LAST), strict=True)))
    tampering.rollback()
    assert [int(position) for position in found.positions] == [row[0] for row in rows]
    assert list(found.payloads) == [row[RAW_COLUMNS.index(sealing.PAYLOAD)] for row in rows]
    for row, form in zip(rows, found.forms, strict=True):
        wanted = canonical(row).encode()
        # Not escaped, it differs where something had to be: of a control character it is no canonical form at all.
        assert form == wanted or (not escaped and b"\\" in wanted and b"\\" not in form)


def test_all_of_it_comes_in_order(world: World, tampering: Session, key: SigningKey) -> None:
    """Piece by piece, whatever the bounds; and an end in the middle leaves nothing behind."""
    sealed_story(world, key)
    plain = dict.fromkeys((*sealing.TEXTS, *sealing.OPTIONAL), "x") | dict.fromkeys(sealing.NUMBERS, 1)
    tampering.begin()
    del plain["event_id"]
    for _ in range(2300):
        insert(tampering, {**plain, sealing.PAYLOAD: b"{}"})
    for position in (9 * 10**16, 10**17):
        insert(tampering, {**plain, sealing.PAYLOAD: b"{}"}, position)
    rows = stored(tampering)
    places = [row[0] for row in rows]

    def between(after: int, upto: int) -> list[int]:
        return [int(place) for some in tampering.written(after, upto) for place in some.positions]

    assert between(FIRST, LAST) == places
    assert between(places[3], places[2203]) == places[4:2204]
    assert between(places[3], places[3]) == between(places[-1], LAST) == []
    for few in range(3):
        pieces = tampering.written(FIRST, LAST)
        for _ in range(few):
            next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert between(FIRST, places[5]) == places[:6]
    tampering.rollback()


ODD: dict[str, Callable[[dict[str, Any]], None]] = {
    "quotes and backslashes": lambda row: row.update(actor='CORP\\"ann"', origin="cli@\\\\x:1"),
    "control characters": lambda row: row.update(actor="a\nb\tc\x01", command="\r"),
    "an id that JSON escapes": lambda row: row.update(event_id='odd","id'),
    "bytes that are no text": lambda row: row.update(state=b"\xff\xfe\0\xff"),
    "an empty payload": lambda row: row.update(state=b""),
    "empty texts": lambda row: row.update(actor="", agent_id="", causation_id="", command=""),
    "large": lambda row: row.update(actor="é" * 1_000_000, state=b"x" * 3_000_000),
    "plain": lambda row: None,
}


@pytest.mark.parametrize("odd", ODD)
def test_what_was_odd_when_it_was_sealed_is_intact(
    world: World, tampering: Session, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.engine.create(ANN, "box")
    first = stored(tampering)[-1]
    event = dict(zip(RAW_COLUMNS, first, strict=True)) | {"event_id": f"id {odd}"}
    ODD[odd](event)
    insert(tampering, event)
    Sealer(world.store).catch_up()
    evidence = LogEvidence(SeenFromWithin(tampering, world.store.installation))
    tampering.begin()
    if odd in ("quotes and backslashes", "empty texts", "large", "plain"):
        monkeypatch.setattr(verifier, "_thorough", None)  # these are not for it to judge
    verdict = verify(evidence)
    tampering.rollback()
    assert (verdict.intact, verdict.unsealed) == (True, 0)
    assert verdict.events == len(stored(tampering))


@pytest.mark.parametrize("second", ["missing", "kept", "given"])
@pytest.mark.parametrize("number", range(len(sealing.TEXTS) - 2))
def test_texts_do_not_run_into_each_other(world: World, tampering: Session, number: int, second: str) -> None:
    """What stood in two columns is put into one, with what JSON has between them; the other one is given away."""
    one, other = sealing.TEXTS[number + 1 : number + 3]
    world.engine.create(ANN, "box")
    Sealer(world.store).catch_up()
    loosen(tampering)
    tampering.begin()
    ((position,),) = tampering.run("SELECT max(position) FROM events")
    value = {"missing": "NULL", "kept": other, "given": "''"}[second]
    tampering.run(
        f"UPDATE events SET {one} = {one} || '\",\"' || {other}, {other} = {value} WHERE position = ?", (position,)
    )
    verdict = verify(LogEvidence(SeenFromWithin(tampering, world.store.installation)))
    tampering.rollback()
    assert [(finding.kind, finding.position) for finding in verdict.findings] == [("edited", position)]


def loosen(session: Session) -> None:
    """Let every column be NULL, as whoever owns the table can."""
    try:
        for name in sealing.TEXTS:
            session.run(f"ALTER TABLE events ALTER COLUMN {name} DROP NOT NULL")
    except Exception:  # SQLite cannot
        for statement in (
            "CREATE TABLE loose AS SELECT * FROM events",
            "DROP TABLE events",
            "ALTER TABLE loose RENAME TO events",
        ):
            session.run(statement)


def test_missing_is_not_empty(world: World, tampering: Session, key: SigningKey) -> None:
    sealed_story(world, key)
    for name in sealing.OPTIONAL:
        tampering.begin()
        rows = tampering.run(f"SELECT position FROM events WHERE {name} IS NULL ORDER BY position")
        tampering.run(f"UPDATE events SET {name} = '' WHERE {name} IS NULL")
        verdict = verify(LogEvidence(SeenFromWithin(tampering, world.store.installation)))
        tampering.rollback()
        assert [(one.kind, one.position) for one in verdict.findings] == [("edited", place) for (place,) in rows]
        assert rows


def test_the_written_form_of_an_escape_is_an_edit(world: World, tampering: Session) -> None:
    """What JSON makes of an actor with a quote is not the same actor, though both are written the same, unescaped."""
    world.engine.create(Principal(user_id='an"n'), "box")
    Sealer(world.store).catch_up()
    tampering.begin()
    tampering.run("UPDATE events SET actor = ? WHERE actor = ?", ('user:an\\"n', 'user:an"n'))
    verdict = verify(LogEvidence(SeenFromWithin(tampering, world.store.installation)))
    tampering.rollback()
    assert {finding.kind for finding in verdict.findings} == {"edited"}
    assert len(verdict.findings) == verdict.events


def test_text_is_no_payload(world: World, tampering: Session, key: SigningKey) -> None:
    """Though its bytes are the same; where the database lets it in."""
    sealed_story(world, key)
    tampering.begin()
    try:
        tampering.run("ALTER TABLE events ALTER COLUMN state TYPE text USING convert_from(state, 'UTF8')")
    except sqlite3.Error:  # SQLite just takes it
        tampering.run("UPDATE events SET state = CAST(state AS TEXT)")
    verdict = verify(LogEvidence(SeenFromWithin(tampering, world.store.installation)))
    tampering.rollback()
    assert {finding.kind for finding in verdict.findings} == {"edited"}
    assert len(verdict.findings) == verdict.events


def test_it_says_how_far_it_is(world: World, tampering: Session, key: SigningKey) -> None:
    sealed_story(world, key)
    heard: list[tuple[int, int]] = []
    tampering.begin()
    events = verify(
        LogEvidence(SeenFromWithin(tampering, world.store.installation)), told=lambda *some: heard.append(some)
    ).events
    tampering.rollback()
    assert heard[-1] == (events, events)
