"""The shapes of ids. Random bytes arrive as arguments, so that this stays pure and a simulation can repeat itself."""

from __future__ import annotations

from uuid import UUID


def sandbox_id(random: UUID) -> str:
    """`sb_` and 32 hexadecimal characters. Random, not time-ordered: a short prefix tells sandboxes apart."""
    return "sb_" + random.hex


def execution_id(random: UUID) -> str:
    """`ex_` and 32 hexadecimal characters."""
    return "ex_" + random.hex


def member_id(random: UUID) -> str:
    """Of the warm pool: `pm_` and 32 hexadecimal characters."""
    return "pm_" + random.hex
