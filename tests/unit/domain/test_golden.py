"""Every event version ever written still loads, folds to what it meant, and is written the same way.

`tests/golden/*.jsonl` are whole streams: one stored event a line, and what they fold to in a last line. Lines are
never edited or removed; a new event or version gets a new line in one of the streams or a stream of its own.
`tests/golden/shapes.json` says what each version holds; an entry changes only together with its version number.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from nexus.domain import encoding, pool, sandbox
from nexus.domain import events as ev
from nexus.domain.values import from_text, to_text

GOLDEN = Path(__file__).parents[2] / "golden"
STREAMS = sorted(GOLDEN.glob("*.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def stored(path: Path) -> list[dict[str, Any]]:
    return [line for line in lines(path) if "topic" in line]


def read(line: dict[str, Any]) -> ev.Event:
    return encoding.decode(line["topic"], line["version"], json.dumps(line["payload"]).encode())


def summary(value: Any) -> Any:
    """State as JSON: times as text, the rest as it is."""
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {name: summary(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: summary(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [summary(item) for item in value]
    return to_text(value) if hasattr(value, "tzinfo") else value


def shape(kind: type[ev.Event]) -> dict[str, str]:
    """What an event holds: field -> type, the values of an enum spelled out, `?` where a default stands in."""
    return {
        name: described(field.annotation) + ("" if field.is_required() else f" ? {field.default!r}")
        for name, field in kind.model_fields.items()
    }


def described(annotation: Any) -> str:
    inner = typing.get_args(annotation)
    if isinstance(annotation, types.UnionType):
        return " | ".join(sorted(map(described, inner)))
    if inner and typing.get_origin(annotation) is not None:
        return f"{typing.get_origin(annotation).__name__}[{', '.join(map(described, inner))}]"
    if isinstance(annotation, enum.EnumType):
        return "/".join(str(value) for value in list[Any](annotation))
    return str(getattr(annotation, "__name__", annotation))


def test_the_corpus_is_there() -> None:
    assert len(STREAMS) >= 4


def test_every_version_ever_written_is_in_the_corpus() -> None:
    written = {(line["topic"], line["version"]) for path in STREAMS for line in stored(path)}
    ever = {(kind.TOPIC, version) for kind in ev.EVENT_TYPES for version in range(1, kind.VERSION + 1)}
    assert ever - written == set(), "add a line for each to a stream in tests/golden"
    assert written - ever == set(), "what was once written must stay readable"


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: str(path.stem))
def test_a_stream_loads_and_is_written_the_same_way(path: Path) -> None:
    for line in stored(path):
        event = read(line)
        assert line["topic"] == event.TOPIC
        if line["version"] == type(event).VERSION:
            assert json.loads(encoding.encode(event)) == line["payload"]
        assert encoding.decode(event.TOPIC, type(event).VERSION, encoding.encode(event)) == event


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: str(path.stem))
def test_a_stream_folds_to_what_it_meant(path: Path) -> None:
    *rows, end = lines(path)
    meant = end["folds_to"]
    if meant is None:  # names and keys have no state beyond their last claim, and a refusal has none at all
        stateless = {"name.claimed", "key.claimed", "command.refused", "pool.slot_claimed"}
        assert {row["topic"] for row in rows} <= stateless
        return
    fold = pool.fold if rows[0]["topic"].startswith("pool.") else sandbox.fold
    state: Any = fold(
        None,
        [
            ev.Envelope(
                event_id=f"{number:032x}",
                originator_id=f"sandbox-{path.stem}",
                originator_version=number,
                occurred_at=from_text(row["at"]),
                event=read(row),
                actor="user:ann",
                tenant_id="default",
                command="golden",
                correlation_id="golden",
                causation_id=None,
                origin="python@host:1",
            )
            for number, row in enumerate(rows, start=1)
        ],
    )
    now = summary(state)
    assert {name: now[name] for name in meant} == meant


def test_an_event_changes_its_shape_only_with_its_version() -> None:
    known = json.loads((GOLDEN / "shapes.json").read_text(encoding="utf-8"))
    today = {f"{kind.TOPIC} {kind.VERSION}": shape(kind) for kind in ev.EVENT_TYPES}
    for name, fields in today.items():
        entry = json.dumps({name: fields}, indent=1)
        assert name in known, f"a new event or version: add it to tests/golden/shapes.json and the corpus:\n{entry}"
        assert fields == known[name], (
            f"{name} changed its shape: raise its VERSION, add an upcaster, a line to the corpus, and here\n{entry}"
        )
    ever = {f"{kind.TOPIC} {version}" for kind in ev.EVENT_TYPES for version in range(1, kind.VERSION + 1)}
    assert set(known) == ever, "entries of old versions stay"
