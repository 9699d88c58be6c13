"""Payloads of the log as JSON has them, not validated again: several times as fast as `encoding.decode`.

They were validated when they were written. What does not have exactly the fields that this version writes, an older
version's event for one, goes the careful way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from nexus.domain.encoding import decode
from nexus.domain.events import EVENT_TYPES

Row = tuple[Any, ...]
_KINDS: Final = {(kind.TOPIC, kind.VERSION): kind for kind in EVENT_TYPES}


def plain(topic: str, schema_version: int, states: Sequence[bytes]) -> Mapping[str, Sequence[Any]]:
    """The fields of events of one kind, column by column; times and enumerations among them may be text.

    Raises `UnreadableEvent` when one of them cannot be read.
    """
    if (topic, schema_version) in _KINDS:
        fields, rows_of = _reader(topic, schema_version)
        try:
            return dict(zip(fields, zip(*rows_of(states), strict=True), strict=False))
        except (ValueError, RecursionError):
            pass  # one of them is no JSON, no object, or has other fields
    events = [vars(decode(topic, schema_version, state)) for state in states]
    return {name: [event[name] for event in events] for name in events[0]}


@cache
def _reader(topic: str, schema_version: int) -> tuple[tuple[str, ...], Callable[[Sequence[bytes]], Iterator[Row]]]:
    """A kind's fields, and what gives their values, whatever these are. `ValueError` where others are found."""
    import msgspec  # a program that follows nothing starts without it

    fields = tuple(_KINDS[topic, schema_version].model_fields)
    struct = msgspec.defstruct("Payload", [(name, Any) for name in fields], forbid_unknown_fields=True, gc=False)
    read, values = msgspec.json.Decoder(struct).decode, msgspec.structs.astuple
    return fields, lambda states: map(values, map(read, states))
