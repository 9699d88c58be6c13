"""The canonical form of an event, and its hashes. Changing a byte here invalidates every seal there is.

form = RFC 8785 JSON: `["nexus-event/1", ten texts, agent_id, causation_id, two numbers, which of the ids are missing]`
leaf = SHA-256(form ‖ SHA-256(payload))
head = SHA-256(head before ‖ leaf ‖ position in decimal), beginning with 32 zero bytes

What a leaf is made of is longer than anything that a head can be made of, so that none can be taken for the other. A
test holds the form against a library's, and another one what the databases write (`Reading.written`) against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from json.encoder import encode_basestring as quoted
from typing import Any, Final

from nexus.domain import sealing

GENESIS: Final = bytes(32)

RAW_COLUMNS: Final = (
    "position",
    "event_id",
    "originator_id",
    "originator_version",
    "topic",
    "schema_version",
    "state",
    "occurred_at",
    "recorded_at",
    "actor",
    "tenant_id",
    "agent_id",
    "command",
    "correlation_id",
    "causation_id",
    "origin",
)
"""What a raw event is: these columns, in this order, as the database holds them."""

RawEvent = Sequence[Any]

_TEXTS: Final = tuple(map(RAW_COLUMNS.index, sealing.TEXTS))
_OPTIONAL: Final = tuple(map(RAW_COLUMNS.index, sealing.OPTIONAL))
_NUMBERS: Final = tuple(map(RAW_COLUMNS.index, sealing.NUMBERS))
_PAYLOAD: Final = RAW_COLUMNS.index(sealing.PAYLOAD)


def canonical(event: RawEvent) -> str:
    """The event as RFC 8785 JSON, without its payload and its position: the leaf and the chain bind these.

    Raises `TypeError` or `ValueError` where a column holds what no event has.
    """
    texts = [sealing.FORMAT, *[event[at] for at in _TEXTS]]
    texts += ["" if event[at] is None else event[at] for at in _OPTIONAL]
    missing = sum(1 << number for number, at in enumerate(_OPTIONAL) if event[at] is None)
    numbers = [*[event[at] for at in _NUMBERS], missing]
    return f"[{','.join(map(quoted, texts))},{','.join([f'{number:d}' for number in numbers])}]"


def leaf(event: RawEvent) -> bytes:
    """The hash of one event, wherever it stands. Raises as `canonical` does."""
    return sha256(canonical(event).encode("utf-8", "surrogatepass") + sha256(event[_PAYLOAD]).digest()).digest()


def leaves(forms: Iterable[bytes], payloads: Iterable[bytes]) -> list[bytes]:
    """`leaf` for each of these canonical forms and payloads."""
    return [sha256(form + sha256(payload).digest()).digest() for form, payload in zip(forms, payloads, strict=True)]


def chained(previous: bytes, positions: Iterable[bytes], leaf_hashes: Iterable[bytes]) -> bytes:
    """The chain's head after these events. Positions are in decimal."""
    for position, leaf_hash in zip(positions, leaf_hashes, strict=True):
        previous = sha256(previous + leaf_hash + position).digest()
    return previous


def link(previous: bytes, position: int, leaf_hash: bytes) -> bytes:
    """The chain's head after this event."""
    return chained(previous, (b"%d" % position,), (leaf_hash,))
