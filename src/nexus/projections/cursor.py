"""Where a page of a list ended, as an opaque text that fits that list of that caller alone. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nexus.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page. The next page holds what is older, so rows that are added meanwhile move nothing."""

    created_at: str
    sandbox_id: str

    def to_text(self, question: Any) -> str:
        """Opaque text, bound to the question: who asked, and with which filter."""
        payload = json.dumps([self.created_at, self.sandbox_id, _digest(question)], separators=(",", ":"))
        return payload.encode().hex()

    @classmethod
    def from_text(cls, text: str, question: Any) -> Cursor:
        """Raises `InvalidInput` for anything but the cursor of this very question."""
        try:
            created_at, sandbox_id, digest = json.loads(bytes.fromhex(text))
        except (ValueError, TypeError, RecursionError):
            raise _refused() from None
        if digest != _digest(question) or not isinstance(created_at, str) or not isinstance(sandbox_id, str):
            raise _refused()
        return cls(created_at, sandbox_id)


def _refused() -> InvalidInput:
    return InvalidInput(
        "The cursor does not belong to this list",
        hint="Use a cursor only with the filter and the user that it was given for; leave it out to begin anew.",
        field="cursor",
    )


def _digest(question: Any) -> str:
    import hashlib  # only a list of several pages needs it

    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
