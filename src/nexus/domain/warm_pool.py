"""The optional protocol beside the provider port: resources that are made before it is known which sandboxes they
will be. Errors are those of the port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from nexus.domain.provider import Condition, Limits, NetworkPolicy, Observed, Ref, SandboxSpec, Template


@dataclass(frozen=True, slots=True)
class Kind:
    """What makes resources alike until they are set up, in the provider's own words."""

    place: str
    """Where they are: another engine or account is another place."""
    digest: str


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """Everything that an adapter needs to make a member of the warm pool."""

    member_id: str
    """`pm_` and 32 hexadecimal characters."""
    installation: str
    template: Template
    expires_at: datetime
    """When it may end on its own account if no sandbox has taken it."""
    limits: Limits = field(default_factory=Limits)
    network: NetworkPolicy = "full"


@dataclass(frozen=True, slots=True)
class Pooled:
    """What an adapter saw of one member's resource."""

    member_id: str
    condition: Condition
    created_at: datetime | None = None


@runtime_checkable
class WarmPool(Protocol):
    """Beside `Provider`, for one that can make resources before it is known which sandboxes they will be.

    A member's resource is no sandbox: `Provider.owned` and `find` do not report it. Who may take which member is
    decided by the log; an adapter is never asked to give one member to two sandboxes.
    """

    def kind(self, template: Template, limits: Limits, network: NetworkPolicy) -> Kind | None:
        """The same for two when a member made by the one can become a sandbox made by the other.

        None where such resources cannot wait. Raises what `ensure` raises for a template that cannot be had.
        """
        ...

    def prepare(self, spec: MemberSpec) -> Ref:
        """Make **or adopt** the resource of this member, and wait until it can be taken."""
        ...

    def adopt(self, spec: SandboxSpec, ref: Ref) -> Observed:
        """Make the member's resource this sandbox's, set up as `ensure` would; may be repeated.

        `ProviderGone` or `ProviderNotRunning`: it cannot become one.
        """
        ...

    def pooled(self, installation: str) -> Sequence[Pooled]:
        """Every resource that is a member of this installation's pool and not yet a sandbox, oldest first."""
        ...

    def withdraw(self, member_id: str, installation: str) -> bool:
        """Destroy the member's resource unless it has become a sandbox. False when there is none."""
        ...
