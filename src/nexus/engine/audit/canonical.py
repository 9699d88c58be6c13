"""The canonical form of an event, and its hashes. Changing a byte here invalidates every seal there is.

leaf  = SHA-256(0x00 ‖ canonical JSON of the event's columns, with the SHA-256 of its payload in place of the payload)
chain = SHA-256(0x01 ‖ previous chain ‖ position as 8 bytes, big-endian ‖ leaf), beginning with 32 zero bytes

The JSON is RFC 8785's: keys sorted, no spaces, UTF-8. It is written out by hand because verifying is a loop over
millions of events; a test holds it against a library's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from hashlib import sha256
from itertools import chain
from json.encoder import encode_basestring as quoted
from struct import pack
from typing import Any, Final

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


def canonical(event: RawEvent) -> str:
    """The event as RFC 8785 JSON, its payload as a digest. The position is not in it: the chain binds that."""
    (
        _,
        event_id,
        stream,
        version,
        topic,
        schema,
        state,
        occurred,
        recorded,
        actor,
        tenant,
        agent,
        command,
        corr,
        cause,
        origin,
    ) = event
    return (
        f'{{"actor":{quoted(actor)},"agent_id":{"null" if agent is None else quoted(agent)}'
        f',"causation_id":{"null" if cause is None else quoted(cause)},"command":{quoted(command)}'
        f',"correlation_id":{quoted(corr)},"event_id":{quoted(event_id)},"occurred_at":{quoted(occurred)}'
        f',"origin":{quoted(origin)},"originator_id":{quoted(stream)},"originator_version":{version:d}'
        f',"payload_sha256":"{sha256(state).hexdigest()}","recorded_at":{quoted(recorded)}'
        f',"schema_version":{schema:d},"tenant_id":{quoted(tenant)},"topic":{quoted(topic)}}}'
    )


def quick_leaves(events: Iterable[RawEvent]) -> list[bytes]:
    """What `leaf` gives, at half its price, for events that are as they were sealed; only to compare with seals.

    Text is written without looking for what JSON escapes. An event that has such characters gets another hash than
    its leaf, unless the text has a backslash and is written anew. So a hash found here that equals a seal's leaf is of
    a text that is the sealed canonical form and has no backslash; a form without a backslash has nothing escaped, and
    its quotes are those of the template: the event is the sealed one. Whatever differs is for `leaf` to judge.

    Each event is followed by one more column, which is left alone: its seal's leaf. Raises `TypeError` or `ValueError`
    where a column holds what no event has.
    """
    found = []
    for event in events:
        (
            _,
            event_id,
            stream,
            version,
            topic,
            schema,
            state,
            occurred,
            recorded,
            actor,
            tenant,
            agent,
            command,
            corr,
            cause,
            origin,
            _,
        ) = event
        # Joined and added rather than formatted: that takes text and nothing else.
        text = "".join(
            (
                '\0{"actor":"',
                actor,
                '","agent_id":null,"causation_id":'
                if agent is None
                else '","agent_id":"' + agent + '","causation_id":',
                'null,"command":"' if cause is None else '"' + cause + '","command":"',
                command,
                '","correlation_id":"',
                corr,
                '","event_id":"',
                event_id,
                '","occurred_at":"',
                occurred,
                '","origin":"',
                origin,
                '","originator_id":"',
                stream,
                '","originator_version":',
                str(version),
                ',"payload_sha256":"',
                sha256(state).hexdigest(),
                '","recorded_at":"',
                recorded,
                '","schema_version":',
                str(schema),
                ',"tenant_id":"',
                tenant,
                '","topic":"',
                topic,
                '"}',
            )
        )
        found.append(sha256(text.encode()).digest() if "\\" not in text else leaf(event[:-1]))
    return found


def leaf(event: RawEvent) -> bytes:
    """The hash of one event, wherever it stands."""
    return sha256(b"\0" + canonical(event).encode("utf-8", "surrogatepass")).digest()


def link(previous: bytes, position: int, leaf_hash: bytes) -> bytes:
    """The chain's head after this event."""
    return sha256(b"\1" + previous + position.to_bytes(8, "big", signed=True) + leaf_hash).digest()


def placed(positions: Sequence[int], leaves: Sequence[bytes]) -> bytes:
    """Positions and leaves as `link` hashes them, 40 bytes each."""
    return pack(">" + "q32s" * len(leaves), *chain.from_iterable(zip(positions, leaves, strict=True)))


def chain_placed(previous: bytes, run: bytes, stops: Container[bytes]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """`link` for all that `placed` gave: the head after it, and (number, head) after each position in `stops`.

    `stops` are positions of 8 bytes; numbers count the run's positions from 1.
    """
    passed = []
    for start in range(0, len(run), 40):
        previous = sha256(b"\1" + previous + run[start : start + 40]).digest()
        if run[start : start + 8] in stops:
            passed.append((start // 40 + 1, previous))
    return previous, passed


def chained(previous: bytes, leaves: Iterable[tuple[int, bytes]]) -> bytes:
    """The chain's head after these (position, leaf) pairs."""
    for position, leaf_hash in leaves:
        previous = link(previous, position, leaf_hash)
    return previous
