"""What of an event is sealed, and how it is written down for that: the one definition that stores and audit share.

An event is written as RFC 8785 JSON, an array: the name of the format, the texts, its id first, the numbers, and which
of the texts that may be missing are. A missing one is written as an empty text: so every event has the same number of
quotes, which is why `Written.forms` need not always be escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

FORMAT: Final = "nexus-event/1"
TEXTS: Final = (
    "event_id",
    "originator_id",
    "topic",
    "occurred_at",
    "recorded_at",
    "actor",
    "tenant_id",
    "command",
    "correlation_id",
    "origin",
)
OPTIONAL: Final = ("agent_id", "causation_id")
"""Texts too, which may be missing. The array's last number is the sum of 1 and 2 for those that are, in this order."""
NUMBERS: Final = ("originator_version", "schema_version")
PAYLOAD: Final = "state"
"""Bytes. They are not in the array: their digest follows it."""


class Written(NamedTuple):
    """Some events in the order of their positions, written down by the database that holds them."""

    positions: Sequence[bytes]
    """In decimal."""
    forms: Sequence[bytes]
    """Texts are escaped as JSON has it, or, in a form without a backslash, stand between their quotes as they are.

    One that is not escaped, has no backslash and equals the canonical form of some event is that of this event all the
    same. For the canonical form then has nothing escaped, so no quotes but those of the array; this one has the array's
    quotes too, and as many, so its texts have none: the texts begin and end at the same places.
    """
    payloads: Sequence[bytes]
