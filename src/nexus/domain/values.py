"""Small values that every layer speaks: states, reasons, principals, and times as text.

Standard library only: the read paths of the command line import this and must start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class SandboxState(StrEnum):
    """Public state of a sandbox; an operation in flight lies beside it as `Pending`."""

    CREATING = "creating"
    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"


class StopReason(StrEnum):
    """Why a sandbox is stopped."""

    USER = "user"
    EXPIRED = "expired"
    FAILED = "failed"
    """It never came up, or could not be resumed."""
    LOST = "lost"
    """Its resource was proven to be gone."""
    ORPHANED = "orphaned"
    """Whoever was creating it died, and what was made could not be adopted."""


class MemberState(StrEnum):
    """Where a member of the warm pool is on its way."""

    REQUESTED = "requested"
    READY = "ready"
    TAKEN = "taken"
    RETIRED = "retired"
    """To be removed."""
    REMOVED = "removed"


class RetireReason(StrEnum):
    """Why a member of the warm pool is removed."""

    FAILED = "failed"
    """It could not be made."""
    ABANDONED = "abandoned"
    """Whoever was making it is gone."""
    EXPIRED = "expired"
    """Nobody took it in time."""
    OUTDATED = "outdated"
    """Its template makes other resources now."""
    SURPLUS = "surplus"
    """The pool became smaller."""
    LOST = "lost"
    """Its resource was proven to be gone."""
    UNFIT = "unfit"
    """It could not become the sandbox that had taken it."""
    STRANDED = "stranded"
    """The sandbox that had taken it ended before it had become that sandbox."""
    DRAINED = "drained"
    """An operator emptied the pool."""


class ErasureReason(StrEnum):
    """Why kept code and output are gone."""

    USER = "user"
    RETENTION = "retention"
    """They had been kept for as long as the settings say."""


class Operation(StrEnum):
    """An operation whose intent is recorded before its effect."""

    CREATE = "create"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


class Action(StrEnum):
    """What a principal may be allowed to do with a sandbox."""

    CREATE = "create"
    READ = "read"
    RUN = "run"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    EXTEND = "extend"
    FILES = "files"
    READ_BODIES = "read_bodies"
    ERASE_BODIES = "erase_bodies"
    OPERATE = "operate"
    """Reconcile, take over, rebuild: the work of an installation's operator."""


LANGUAGES = ("python", "javascript", "bash")
"""Languages that code may be written in; a provider may offer fewer."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. Made by the door (facade, command line, server), never from fields of a request."""

    user_id: str
    tenant_id: str = "default"
    agent_id: str | None = None
    is_admin: bool = False
    is_system: bool = False

    @property
    def actor(self) -> str:
        """How the audit log names this principal."""
        if self.is_system:
            return f"system:{self.user_id}"
        return f"agent:{self.agent_id}" if self.agent_id else f"user:{self.user_id}"


def system_principal(role: str = "worker", tenant_id: str = "default") -> Principal:
    """The principal of the installation's own work: expiry, take-over, reconcile."""
    return Principal(user_id=role, tenant_id=tenant_id, is_admin=True, is_system=True)


def to_text(moment: datetime) -> str:
    """UTC with microseconds and offset, always 32 characters, so that text sorts as time does."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not a point in time")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


def from_text(text: str) -> datetime:
    """The reverse of `to_text`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
