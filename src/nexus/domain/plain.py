"""Payloads of the log as JSON has them, not validated again: several times as fast as `encoding.decode`.

They were validated when they were written. What does not have exactly the fields that this version writes, an older
version's event for one, goes the careful way.
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json

from nexus.domain.encoding import decode
from nexus.domain.events import EVENT_TYPES

_FIELDS: Final = {kind.TOPIC: (kind.VERSION, kind.model_fields.keys()) for kind in EVENT_TYPES}
_UNKNOWN: Final[tuple[int, KeysView[str]]] = (0, {}.keys())


def all_plain(topic: str, schema_version: int, states: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
    """The fields of events of one kind. Raises some `Exception` when one of them cannot be read."""
    version, fields = _FIELDS.get(topic, _UNKNOWN)
    if version == schema_version:
        values = list(map(from_json, states))
        if all(map(fields.__eq__, map(dict.keys, values))):
            return values
    return [plain(topic, schema_version, state) for state in states]


def plain(topic: str, schema_version: int, state: bytes) -> Mapping[str, Any]:
    """An event's fields; times and enumerations among them may be text. Raises `UnreadableEvent`."""
    version, fields = _FIELDS.get(topic, _UNKNOWN)
    if version == schema_version:
        try:
            values = from_json(state)
        except ValueError:
            values = None
        if type(values) is dict and values.keys() == fields:
            return values
    return vars(decode(topic, schema_version, state))
