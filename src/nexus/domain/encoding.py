"""Events as they are stored: JSON of a topic and a version, and how what older programs wrote is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from nexus.domain import events as ev
from nexus.domain.errors import UnreadableEvent
from nexus.domain.event import Json

UPCASTERS: Final[dict[tuple[str, int], Callable[[Json], Json]]] = {
    (ev.ExecutionStarted.TOPIC, 1): lambda payload: {**payload, "session": None},  # before there were sessions
}
"""(topic, old version) → a function from the old payload to that of the next version."""

_CURRENT: Final = {(kind.TOPIC, kind.VERSION): kind.__pydantic_validator__.validate_json for kind in ev.EVENT_TYPES}
"""(topic, version) → what reads a payload of today. One look-up: every replay comes here for each event."""


def encode(event: ev.Event) -> bytes:
    """The event's payload as JSON."""
    return event.__pydantic_serializer__.to_json(event)


def decode(topic: str, schema_version: int, state: bytes) -> ev.Event:
    """The event of a stored payload; older versions are upcast, unknown ones raise `UnreadableEvent`."""
    try:
        return _CURRENT[topic, schema_version](state)  # type: ignore[no-any-return]
    except (LookupError, ValueError):
        return _older(topic, schema_version, state)


def read(topic: str, schema_version: int, state: bytes) -> ev.Event:
    """Like `decode`; for one that cannot be read `nexus.domain.events.Unread` stands there instead."""
    try:
        return decode(topic, schema_version, state)
    except UnreadableEvent as error:
        return ev.Unread(stored_topic=topic, stored_version=schema_version, reason=error.message)


def _older(topic: str, schema_version: int, state: bytes) -> ev.Event:
    """What is not of today, or cannot be read: then it is told why."""
    kind = ev.BY_TOPIC.get(topic)
    if kind is None:
        raise UnreadableEvent(f"unknown event {topic!r}", topic=topic, schema_version=schema_version)
    if schema_version > kind.VERSION:
        raise UnreadableEvent(
            f"event {topic!r} has version {schema_version}; this program knows up to {kind.VERSION}",
            topic=topic,
            schema_version=schema_version,
        )
    try:
        if schema_version == kind.VERSION:
            return kind.__pydantic_validator__.validate_json(state)  # type: ignore[no-any-return]
        payload = json.loads(state)
        for version in range(schema_version, kind.VERSION):
            payload = UPCASTERS[topic, version](payload)
        return kind.model_validate_json(json.dumps(payload))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableEvent(
            f"event {topic!r} version {schema_version} cannot be read: {type(error).__name__}",
            topic=topic,
            schema_version=schema_version,
        ) from error
