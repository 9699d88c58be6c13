"""Events as they are stored: what goes in comes out, what cannot be read says so, nothing stored is poison."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nexus.domain import commands as cmd
from nexus.domain import encoding, pool_events
from nexus.domain import events as ev
from nexus.domain.decisions import decide
from nexus.domain.errors import UnreadableEvent
from nexus.domain.validation import MAX_SAID
from nexus.domain.values import ErasureReason, Operation, RetireReason, StopReason
from tests.unit.domain import story

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
MOMENT = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))
BY_ANNOTATION: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "str | None": st.none() | TEXT,
    "int": st.integers(-(2**63), 2**63),
    "int | None": st.none() | st.integers(0, 64),
    "float": NUMBER,
    "float | None": st.none() | NUMBER,
    "bool": st.booleans(),
    "AwareDatetime": MOMENT,
    "AwareDatetime | None": st.none() | MOMENT,
    "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
    "dict[str, str]": st.dictionaries(TEXT, TEXT, max_size=3),
    "dict[str, int | float | None]": st.dictionaries(TEXT, st.none() | st.integers() | NUMBER, max_size=3),
    "Json": st.dictionaries(TEXT, JSON, max_size=3),
    "Operation": st.sampled_from(Operation),
    "StopReason": st.sampled_from(StopReason),
    "RetireReason": st.sampled_from(RetireReason),
    "ErasureReason": st.sampled_from(ErasureReason),
}


def annotated(kind: type[ev.Event]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name, annotation in vars(base).get("__annotations__", {}).items():
            if name in kind.model_fields:
                found[name] = str(annotation)
    return found


def any_event() -> st.SearchStrategy[ev.Event]:
    return st.one_of(
        [
            st.builds(kind, **{name: BY_ANNOTATION[text] for name, text in annotated(kind).items()})
            for kind in ev.EVENT_TYPES
        ]
    )


@given(any_event())
def test_what_goes_in_comes_out(event: ev.Event) -> None:
    stored = encoding.encode(event)
    read = encoding.decode(event.TOPIC, event.VERSION, stored)
    assert type(read) is type(event)
    assert read == event
    assert encoding.encode(read) == stored


def test_topics_are_unique_and_every_event_has_one() -> None:
    assert len(ev.BY_TOPIC) == len(ev.EVENT_TYPES)
    for topic, kind in ev.BY_TOPIC.items():
        assert topic == kind.TOPIC
    named = [*vars(ev).values(), *vars(pool_events).values()]
    stored = {kind for kind in named if isinstance(kind, type) and issubclass(kind, ev.Event)}
    stored = {kind for kind in stored if "TOPIC" in vars(kind)}
    assert stored - {ev.Unread} == set(ev.EVENT_TYPES), "an event is missing in EVENT_TYPES"


def test_events_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        story.started().attempt = 7


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_does_not_know_is_refused_before_it_is_stored(number: float) -> None:
    with pytest.raises(ValidationError):
        story.paused(remaining=number)


def test_times_must_know_their_zone() -> None:
    with pytest.raises(ValidationError):
        ev.PauseRequested(attempt=1, deadline=datetime(2030, 1, 1), holder="h")


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"attempt":1}',
        b'{"attempt":"2","reason":"user"}',
        b'{"attempt":true,"reason":"user"}',
        b'{"attempt":2.5,"reason":"user"}',
        b'{"attempt":2,"reason":"weather"}',
        b'{"attempt":2,"reason":"user","extra":1}',
    ],
)
def test_a_payload_that_is_not_of_its_kind_is_unreadable(stored: bytes) -> None:
    with pytest.raises(UnreadableEvent) as refusal:
        encoding.decode("sandbox.stopped", 1, stored)
    assert refusal.value.details == {"topic": "sandbox.stopped", "schema_version": 1}


@pytest.mark.parametrize(("topic", "version"), [("sandbox.teleported", 1), ("sandbox.stopped", 2), ("unread", 1)])
def test_what_a_newer_program_wrote_is_unreadable_and_says_so(topic: str, version: int) -> None:
    with pytest.raises(UnreadableEvent, match="unknown" if version == 1 else "knows up to 1") as refusal:
        encoding.decode(topic, version, b'{"attempt":2,"reason":"user"}')
    assert "Upgrade" in refusal.value.hint


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_never_was_is_unreadable(version: int) -> None:
    with pytest.raises(UnreadableEvent):
        encoding.decode("sandbox.stopped", version, b'{"attempt":2,"reason":"user"}')


# --- upcasting -------------------------------------------------------------------------------------------------------
class Grown(ev.Event):
    """An event in its third version: its note became a list, and then got an author."""

    TOPIC: ClassVar = "test.grown"
    VERSION: ClassVar = 3
    notes: tuple[str, ...]
    author: str


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ev.BY_TOPIC, Grown.TOPIC, Grown)
    monkeypatch.setitem(encoding.UPCASTERS, (Grown.TOPIC, 1), lambda old: {"notes": [old["note"]]})
    monkeypatch.setitem(encoding.UPCASTERS, (Grown.TOPIC, 2), lambda old: {**old, "author": "unknown"})


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(
    ("version", "stored"),
    [(1, {"note": "a"}), (2, {"notes": ["a"]}), (3, {"notes": ["a"], "author": "unknown"})],
)
def test_older_versions_are_brought_up_step_by_step(version: int, stored: dict[str, Any]) -> None:
    read = encoding.decode(Grown.TOPIC, version, json.dumps(stored).encode())
    assert read == Grown(notes=("a",), author="unknown")


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize("stored", [b"{}", b"[]", b"3", b"null", b'{"note":{}}', b'{"note":"a"'])
def test_an_old_payload_that_cannot_be_brought_up_is_unreadable(stored: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        encoding.decode(Grown.TOPIC, 1, stored)


def test_an_unread_event_keeps_what_was_stored() -> None:
    unread = story.envelope(ev.Unread(stored_topic="sandbox.teleported", stored_version=4, reason="unknown"), 3)
    assert (unread.topic, unread.schema_version) == ("sandbox.teleported", 4)
    known = story.envelope(story.started(), 2)
    assert (known.topic, known.schema_version) == ("sandbox.started", 1)


# --- text from outside -----------------------------------------------------------------------------------------------
def reports(text: str) -> list[tuple[Any, cmd.Command]]:
    """Every command that carries words of a provider, in a state that takes it."""
    creating = story.given(story.requested())
    pausing = story.given(story.requested(), story.started(), story.run_started(), story.pause_requested())
    resuming = story.given(
        story.requested(), story.started(), story.pause_requested(), story.paused(), story.resume_requested()
    )
    return [
        (creating, cmd.RecordFailed(attempt=1, error="x", message=text)),
        (creating, cmd.RecordStarted(attempt=1, ref={}, notes=(text,))),
        (creating, cmd.RecordLost(detail=text)),
        (creating, cmd.ObserveDrift(kind="x", detail=text)),
        (pausing, cmd.LoseExecution(execution_id="ex_1", reason=text)),
        (pausing, cmd.RecordPauseFailed(attempt=2, error="x", message=text)),
        (resuming, cmd.RecordResumeFailed(attempt=3, error="x", message=text)),
        (resuming, cmd.RecordResumed(attempt=3, ref={}, generation=1, notes=(text,))),
    ]


@given(st.text(max_size=20) | st.sampled_from(["\udc80", "a\0b", "x" * 100_000]))
def test_no_outcome_is_lost_to_what_a_provider_said(text: str) -> None:
    for state, command in reports(text):
        for event in decide(command, state, story.START):
            stored = encoding.encode(event)
            assert encoding.decode(event.TOPIC, event.VERSION, stored) == event
            assert b"\\u0000" not in stored
            assert len(stored.decode()) < MAX_SAID * 7


def test_plain_words_are_kept_as_they_are() -> None:
    for state, command in reports("no answer from é"):
        assert any(
            "no answer from é" in encoding.encode(event).decode() for event in decide(command, state, story.START)
        )
