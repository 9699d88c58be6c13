"""Questions to the warm pool's read model. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from nexus.domain.ports import ViewStore
from nexus.domain.values import MemberState, RetireReason, from_text, to_text


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member that is, or may be, a resource of the pool."""

    member_id: str
    version: int
    status: MemberState
    provider: str
    place: str
    template: str
    slot: int
    kind: str
    requested_at: datetime
    ready_at: datetime | None
    expires_at: datetime
    deadline: datetime
    holder: str
    reason: RetireReason | None
    detail: str

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> MemberView:
        moments = ("requested_at", "ready_at", "expires_at", "deadline")
        times = {name: None if row[name] is None else from_text(row[name]) for name in moments}
        reason = None if row["reason"] is None else RetireReason(row["reason"])
        known = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, **times, "status": MemberState(row["status"]), "reason": reason})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; times as text."""
        return {name: to_text(value) if isinstance(value, datetime) else value for name, value in asdict(self).items()}


class PoolQueries:
    """Reads the view. Thread-safe as far as its view store is."""

    def __init__(self, views: ViewStore) -> None:
        self._views = views

    def members(self) -> list[MemberView]:
        """All of them, by template and slot."""
        rows = self._views.query("SELECT * FROM pool_members ORDER BY provider, template, slot, requested_at")
        return [MemberView.from_row(row) for row in rows]

    def ready(self, provider: str, until: datetime) -> list[MemberView]:
        """Those of a provider that can be taken and last at least until then."""
        rows = self._views.query(
            "SELECT * FROM pool_members WHERE provider = :provider AND status = :ready AND expires_at > :until"
            " ORDER BY ready_at",
            {"provider": provider, "ready": MemberState.READY.value, "until": to_text(until)},
        )
        return [MemberView.from_row(row) for row in rows]
