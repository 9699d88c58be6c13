"""Read models that are written in the append's own transaction: a list right after a create is right by construction.

Each is a pure function of an aggregate's folded state, so a replay writes what the live append wrote. Standard library
only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from nexus.domain.ports import RowWrite, Scalar, Table
from nexus.domain.values import SandboxState, to_text
from nexus.projections.tables import DUE, POOL_MEMBERS, SANDBOX_LABELS, SANDBOXES

if TYPE_CHECKING:
    from nexus.domain.pool import Member
    from nexus.domain.sandbox import Pending, Sandbox


class InlineProjection(Protocol):
    """A read model of one kind of aggregate that is a function of its state alone."""

    name: ClassVar[str]
    aggregate: ClassVar[str]
    """A key of `nexus.projections.aggregates.AGGREGATES`."""
    version: ClassVar[int]
    """Goes up with every change of its tables or of what it writes: the store then rebuilds it."""
    tables: ClassVar[tuple[Table, ...]]

    def rows(self, state: Any, before: int = 0) -> list[RowWrite]:
        """What this model holds about the aggregate, but for what it held already at version `before`."""
        ...


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)


_json: Final[Callable[[Any], str]] = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class Sandboxes:
    """What `list` and `status` show."""

    name: ClassVar[str] = "sandboxes"
    aggregate: ClassVar[str] = "sandbox"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (SANDBOXES, SANDBOX_LABELS)

    def rows(self, state: Sandbox, before: int = 0) -> list[RowWrite]:
        if before:
            # What the first event fixed for good is left alone, and so are the indexes on it.
            return [self._row(state, self._changing(state))]
        labels = (
            RowWrite(SANDBOX_LABELS.name, {"sandbox_id": state.sandbox_id, "name": name}, {"value": value})
            for name, value in sorted(state.labels.items())
        )
        return [self._row(state, self.values(state)), *labels]

    def change(self, state: Sandbox, before: Sandbox) -> RowWrite:
        """What differs between two states of one sandbox: a few columns of many, and this is on every command's path.

        States share what did not change, so that mostly identities are compared.
        """
        values: dict[str, Scalar] = {"version": state.version}
        for columns, now, then in zip(_COLUMNS, _attributes_in(state), _attributes_in(before), strict=True):
            if now is not then and now != then:
                values.update(columns(now))
        return self._row(state, values, known=True)

    @staticmethod
    def _row(state: Sandbox, values: dict[str, Scalar], *, known: bool = False) -> RowWrite:
        return RowWrite(SANDBOXES.name, {"sandbox_id": state.sandbox_id}, values, "version", known)

    @classmethod
    def values(cls, state: Sandbox) -> dict[str, Scalar]:
        """The columns of a sandbox's row but for its key."""
        return cls._fixed(state) | cls._changing(state)

    @staticmethod
    def _fixed(state: Sandbox) -> dict[str, Scalar]:
        return {
            "name": state.name,
            "provider": state.provider,
            "template_id": state.template_id,
            "user_id": state.user_id,
            "agent_id": state.agent_id,
            "tenant_id": state.tenant_id,
            "network": state.network,
            "limits": _json(state.limits),
            "labels": _json(state.labels),
            "env_names": _json(state.env_names),
            "ttl_seconds": state.ttl_seconds,
            "max_age_seconds": state.max_age_seconds,
            "capture": int(state.capture),
            "created_at": to_text(state.created_at),
        }

    @staticmethod
    def _changing(state: Sandbox) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {"version": state.version}
        for columns, value in zip(_COLUMNS, _attributes_in(state), strict=True):
            values.update(columns(value))
        return values


def _pending(pending: Pending | None) -> dict[str, Scalar]:
    return {
        "pending_operation": None if pending is None else pending.operation.value,
        "pending_attempt": None if pending is None else pending.attempt,
        "pending_deadline": None if pending is None else to_text(pending.deadline),
        "pending_holder": None if pending is None else pending.holder,
    }


Columns = Callable[[Any], dict[str, Scalar]]

_CHANGING: Final[dict[str, Columns]] = {
    "state": lambda state: {"status": state.value},
    "started_at": lambda at: {"started_at": _text(at)},
    "last_active_at": lambda at: {"last_active_at": _text(at)},
    "paused_at": lambda at: {"paused_at": _text(at)},
    "stopped_at": lambda at: {"stopped_at": _text(at)},
    "stop_reason": lambda reason: {"stop_reason": None if reason is None else reason.value},
    "expires_at": lambda at: {"expires_at": _text(at)},
    "remaining_seconds": lambda seconds: {"remaining_seconds": seconds},
    "notes": lambda notes: {"notes": _json(notes)},
    "pending": _pending,
    "last_error": lambda error: {"last_error": error},
    "runs": lambda runs: {"runs": runs},
    "executions": lambda runs: {"open_executions": len(runs)},
    "generation": lambda generation: {"generation": generation},
    "ref": lambda ref: {"ref": None if ref is None else _json(ref)},
    "incarnation": lambda incarnation: {"incarnation": incarnation},
}
"""Attributes of a sandbox that events after the first may change, and the columns that each of them fills."""
_COLUMNS: Final = tuple(_CHANGING.values())
_attributes_in: Final[Callable[[Sandbox], tuple[Any, ...]]] = attrgetter(*_CHANGING)


class Due:
    """What has to be looked at, and when: what expiry, take-over and reconcile go by."""

    name: ClassVar[str] = "due"
    aggregate: ClassVar[str] = "sandbox"
    version: ClassVar[int] = 2
    tables: ClassVar[tuple[Table, ...]] = (DUE,)

    def rows(self, state: Sandbox, before: int = 0) -> list[RowWrite]:
        return [self.row(state)]

    @staticmethod
    def row(state: Sandbox, *, known: bool = False) -> RowWrite:
        key = {"sandbox_id": state.sandbox_id}
        if state.state is SandboxState.STOPPED:
            return RowWrite(DUE.name, key, None)
        values: dict[str, Scalar] = {
            "version": state.version,
            "due_at": _text(state.due_at()),
            "in_flight": int(state.pending is not None or bool(state.executions)),
        }
        return RowWrite(DUE.name, key, values, "version", known)


class PoolMembers:
    """Members of the warm pool that are, or may be, resources of it; those that became sandboxes are found there."""

    name: ClassVar[str] = "pool"
    aggregate: ClassVar[str] = "pool member"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (POOL_MEMBERS,)

    def rows(self, member: Member, before: int = 0) -> list[RowWrite]:
        key = {"member_id": member.member_id}
        if not member.occupies:
            return [RowWrite(POOL_MEMBERS.name, key, None)]
        values: dict[str, Scalar] = {
            "version": member.version,
            "status": member.state.value,
            "provider": member.provider,
            "place": member.place,
            "template": member.template,
            "slot": member.slot,
            "kind": member.kind,
            "requested_at": to_text(member.requested_at),
            "ready_at": _text(member.ready_at),
            "expires_at": to_text(member.expires_at),
            "deadline": to_text(member.deadline),
            "holder": member.holder,
            "reason": None if member.reason is None else member.reason.value,
            "detail": member.detail,
        }
        return [RowWrite(POOL_MEMBERS.name, key, values, newer="version")]


_SANDBOXES: Final = Sandboxes()
_DUE: Final = Due()
_OF_SANDBOXES: Final[tuple[InlineProjection, ...]] = (_SANDBOXES, _DUE)
_OF_MEMBERS: Final = (PoolMembers(),)
INLINE: Final[tuple[InlineProjection, ...]] = (*_OF_SANDBOXES, *_OF_MEMBERS)


def rows(state: Sandbox, before: Sandbox | None = None) -> list[RowWrite]:
    """The rows that belong into the append which leads a sandbox from one state to the next."""
    if before is None:
        return [row for projection in _OF_SANDBOXES for row in projection.rows(state)]
    return [_SANDBOXES.change(state, before), _DUE.row(state, known=before.state is not SandboxState.STOPPED)]


def member_rows(member: Member, before: int = 0) -> list[RowWrite]:
    """The same for a member of the warm pool."""
    return [row for projection in _OF_MEMBERS for row in projection.rows(member, before)]
