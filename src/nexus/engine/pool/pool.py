"""`Pool`: what the engine, the worker and the doors ask of the warm pool."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nexus.domain.errors import NexusError, ProviderError
from nexus.domain.policies import Limits, authorize
from nexus.domain.pool import Member, PoolPlan
from nexus.domain.ports import Clock, Liveness
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.provider import NetworkPolicy, Observed, Ref, SandboxSpec, Template
from nexus.domain.values import Action, MemberState, Principal, RetireReason
from nexus.domain.warm_pool import Kind
from nexus.engine.pool.comparing import Comparing
from nexus.engine.pool.ending import Ending, keeper
from nexus.engine.pool.filling import Filling
from nexus.engine.pool.members import Members
from nexus.engine.recovery import Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Steps, Streams
from nexus.projections.pool import MemberView, PoolQueries

_SOON: Final = timedelta(seconds=30)
"""A member that ends this soon is not given away any more, and is replaced."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What there is, and what there should be. `wanted`: template → members, after the total bound."""

    provider: str
    wanted: dict[str, int]
    members: tuple[MemberView, ...]


class Pool:
    """Safe to use anywhere and at any time, by several at once: slots bound it, and versions decide who takes."""

    def __init__(
        self,
        streams: Streams,
        providers: Providers,
        liveness: Liveness,
        clock: Clock,
        limits: Limits,
        template: Callable[[str | None], Template],
        plan: PoolPlan | None,
        steps: Steps,
    ) -> None:
        """Without a `plan` nothing is made; what others keep ready is taken and accounted for all the same."""
        self.plan = plan
        self.members = Members(streams)
        self._store = store = streams.store
        self._providers = providers
        self._liveness = liveness
        self._template = template
        self._step = steps
        self._queries = queries = PoolQueries(store.views)
        self._ending = ending = Ending(self.members, providers, store.installation, steps)
        self._filling = Filling(
            store, self.members, ending, queries, providers, liveness, clock, limits, template, steps
        )
        self._comparing = Comparing(streams, self.members, ending, queries, providers, limits)

    # --- taking --------------------------------------------------------------------------------------------------
    def pick(
        self, provider: str, template_id: str | None, limits: Mapping[str, int | float | None], network: str
    ) -> Member | None:
        """A member that can become this sandbox. Nothing is recorded: whoever appends the taking first has it."""
        ready = self._queries.ready(provider, self._store.now() + _SOON)
        if not ready:
            return None
        policy: NetworkPolicy = "none" if network == "none" else "full"
        resources = ResourceLimits(**limits)  # type: ignore[arg-type]  # made from a checked value
        try:
            kind = keeper(self._providers, provider).kind(self._template(template_id), resources, policy)
        except NexusError:
            return None  # `ensure` will say it better
        fitting = [member for member in ready if kind is not None and kind == Kind(member.place, member.kind)]
        if not fitting:
            return None
        member = self.members.load(random.choice(fitting).member_id)
        return member if member is not None and member.state is MemberState.READY else None

    def adopt(self, member: Member, cause: Cause, spec: SandboxSpec) -> Observed | None:
        """The taken member as this sandbox's resource; None when it could not be: it is removed, make another one."""
        try:
            if member.ref is None:
                raise ValueError(f"pool member {member.member_id} has no resource")
            observed = keeper(self._providers, member.provider).adopt(spec, Ref.from_json(member.ref))
        except ProviderError as error:
            # Recorded before another resource is made for the sandbox: a member that counts as taken is the one.
            self._ending.retire(member.member_id, RetireReason.UNFIT, cause, detail=error.message)
            self._ending.remove_quietly(member.member_id, cause)
            return None
        self._step("pool.adopted")
        return observed

    # --- upkeep --------------------------------------------------------------------------------------------------
    def tend(self, report: Report | None = None, stop: Callable[[], bool] = lambda: False) -> Report:
        """Bring the pool to its size: replace what ended, is outdated or too much, make what is missing."""
        report = report if report is not None else Report()
        self.settle(report)
        if self.plan is not None:
            self._filling.fill(self.plan, report, stop)
        return report

    def settle(self, report: Report) -> None:
        """Carry on what was left half done, and remove what nobody took in time."""
        now = self._store.now()
        for member in self._queries.members():
            if member.status is MemberState.READY and member.expires_at <= now + _SOON:
                self._ending.end(member.member_id, RetireReason.EXPIRED, report)
            elif member.status is MemberState.REQUESTED and (
                member.deadline <= now or self._liveness.is_dead(member.holder)
            ):
                self._ending.end(member.member_id, RetireReason.ABANDONED, report)
            elif member.status is MemberState.RETIRED:
                self._ending.end(member.member_id, member.reason or RetireReason.ABANDONED, report)

    def drain(self, principal: Principal) -> Report:
        """Remove all members. Whoever keeps a pool makes new ones. Needs an operator."""
        authorize(principal, Action.OPERATE, None)
        report = Report()
        for member in self._queries.members():
            self._ending.end(member.member_id, RetireReason.DRAINED, report, Cause.of(principal, "pool drain"))
        return report

    def status(self, principal: Principal) -> PoolStatus:
        """What there is. Needs an operator."""
        authorize(principal, Action.OPERATE, None)
        plan = self.plan
        return PoolStatus(
            plan.provider if plan else "", plan.allotted() if plan else {}, tuple(self._queries.members())
        )

    def reconcile(self, providers: list[str], report: Report) -> None:
        """Settle, then make members and resources the same set; `providers` are looked at in any case."""
        self.settle(report)
        planned = set() if self.plan is None else {self.plan.provider}
        self._comparing.compare({*providers, *planned}, report)
