"""Policies as pure functions: who may do what, how long things live, how long operations may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from nexus.domain.errors import NotAllowed, SandboxNotFound
from nexus.domain.values import Action, Operation, Principal


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that an installation sets. Durations are seconds unless the name says minutes."""

    default_ttl_minutes: int = 10
    max_ttl_minutes: int = 1440
    max_age_days: int = 30
    default_timeout: int = 30
    max_timeout: int = 3600
    max_code_bytes: int = 1024 * 1024
    max_file_bytes: int = 32 * 1024 * 1024
    run_grace: int = 10
    """Past its time-out, a run may take this long to be killed and reported before it counts as lost."""
    create_deadline: int = 180
    operation_deadline: int = 60
    orphan_grace: int = 60
    """Resources younger than this are not taken for orphans."""


def operation_deadline(limits: Limits, operation: Operation, now: datetime) -> datetime:
    """When an operation that starts now may be taken over by others."""
    seconds = limits.create_deadline if operation is Operation.CREATE else limits.operation_deadline
    return now + timedelta(seconds=seconds)


def is_young(limits: Limits, created_at: datetime | None, now: datetime) -> bool:
    """Whether a resource is too new to be taken for an orphan; one of unknown age is not.

    The provider's clock may be ahead of the store's: what was made in a moment to come has the age of 0.
    """
    if created_at is None:
        return False
    return max(now - created_at, timedelta()) < timedelta(seconds=limits.orphan_grace)


def lease(limits: Limits, timeout: int, now: datetime) -> datetime:
    """Until when a run that starts now may stay without an outcome."""
    return now + timedelta(seconds=timeout + limits.run_grace)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a sandbox is."""

    user_id: str
    tenant_id: str


def authorize(principal: Principal, action: Action, owner: Owner | None, reference: str = "") -> None:
    """The one decision point: returns, or raises.

    Another's sandbox answers exactly as an unknown one (`SandboxNotFound`). Admins see all of their tenant; tenants
    never mix; the installation's own work is done by system principals.
    """
    if principal.is_system:
        return
    if owner is None:
        if action is Action.OPERATE and not principal.is_admin:
            raise NotAllowed(
                f"{principal.actor} may not operate this installation", actor=principal.actor, action=action
            )
        return
    if owner.tenant_id != principal.tenant_id:
        raise SandboxNotFound(reference)
    if owner.user_id != principal.user_id and not principal.is_admin:
        raise SandboxNotFound(reference)
