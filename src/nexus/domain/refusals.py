"""Which errors are refusals, and the event that says so.

A refusal is a decision: this principal, or a sandbox in this state, may not. What was never a command (bad input), what
was accepted and then failed (its outcome is recorded), and what the weather did (a store or a provider that is away,
too many writers at once) are none.
"""

from __future__ import annotations

from typing import Any, Final

from nexus.domain.errors import (
    AmbiguousReference,
    IdempotencyMismatch,
    IllegalTransition,
    NameTaken,
    NexusError,
    NotAllowed,
    ProviderUnsupported,
    SandboxBusy,
    SandboxNotFound,
)
from nexus.domain.events import CommandRefused
from nexus.domain.validation import shown

REFUSALS: Final = (
    NotAllowed,
    SandboxNotFound,
    AmbiguousReference,
    IllegalTransition,
    SandboxBusy,
    NameTaken,
    IdempotencyMismatch,
)
MAX_REFERENCE: Final = 128
MAX_MESSAGE: Final = 500
"""Characters that a refusal keeps of what was asked for, and of what was answered."""


def is_refusal(error: NexusError) -> bool:
    """Whether this error is a decision against a command, taken before anything was recorded for it."""
    # An adapter may find out that it cannot do something; by then the intent is recorded, and its outcome will be.
    declared = isinstance(error, ProviderUnsupported) and error.details.get("declared") is True
    return declared or isinstance(error, REFUSALS)


def refusal(
    error: NexusError,
    *,
    command: str,
    user_id: str,
    reference: str | None,
    sandbox_id: str | None = None,
    owner_id: str | None = None,
) -> CommandRefused:
    """The event for a refusal. `owner_id` is whose the sandbox is, where the caller was told that there is none."""
    # An idempotency key is stored nowhere else but as a digest, so its text stays out of here as well.
    message = "The idempotency key was used with other parameters" if _has_key(error) else error.message
    return CommandRefused(
        command=command,
        user_id=user_id,
        reference=None if reference is None else _line(reference, MAX_REFERENCE),
        error=error.code,
        message=_line(message, MAX_MESSAGE),
        sandbox_id=sandbox_id or _text(error.details.get("sandbox_id")),
        owner_id=owner_id,
        state=_text(error.details.get("state")),
    )


def as_told(event: CommandRefused) -> CommandRefused:
    """What the one who was refused may read of it: that a sandbox is another's is not for them."""
    return event if event.owner_id is None else event.model_copy(update={"owner_id": None, "sandbox_id": None})


def _has_key(error: NexusError) -> bool:
    return isinstance(error, IdempotencyMismatch)


def _line(text: str, limit: int) -> str:
    return text if text.isprintable() and len(text) <= limit else shown(text, limit)


def _text(value: Any) -> str | None:
    return str(value) if value else None
