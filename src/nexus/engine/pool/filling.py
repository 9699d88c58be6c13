"""Filling the pool: members for the slots that are free, and none for what is no longer wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from nexus.domain import pool as decisions
from nexus.domain.errors import NexusError, ProviderError
from nexus.domain.policies import Limits
from nexus.domain.pool import NotReady, PoolPlan
from nexus.domain.ports import Clock, EventStore, Liveness
from nexus.domain.provider import NetworkPolicy, Template
from nexus.domain.values import MemberState, RetireReason
from nexus.domain.warm_pool import Kind, MemberSpec, WarmPool
from nexus.engine.effects import described
from nexus.engine.pool.ending import Ending, keeper, own_cause
from nexus.engine.pool.members import Members
from nexus.engine.recovery import Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Steps
from nexus.projections.pool import PoolQueries

_LONGEST_REST: Final = 600.0
"""Seconds: the longest that a template whose members cannot be made is left alone."""


class Filling:
    """Several may fill one pool at once: each slot is claimed by one of them."""

    def __init__(
        self,
        store: EventStore,
        members: Members,
        ending: Ending,
        queries: PoolQueries,
        providers: Providers,
        liveness: Liveness,
        clock: Clock,
        limits: Limits,
        template: Callable[[str | None], Template],
        steps: Steps,
    ) -> None:
        self._store = store
        self._members = members
        self._ending = ending
        self._queries = queries
        self._providers = providers
        self._liveness = liveness
        self._clock = clock
        self._limits = limits
        self._template = template
        self._step = steps
        self._rests: dict[str, tuple[int, float]] = {}
        """Template → how often it failed in a row, and until when it is left alone."""

    def fill(self, plan: PoolPlan, report: Report, stop: Callable[[], bool]) -> None:
        allotted = plan.allotted()
        if self._rests_still(""):
            return
        try:
            home = keeper(self._providers, plan.provider)
        except NexusError as error:
            self._rest("")
            report.met("pool", error)
            return
        network: NetworkPolicy = "full" if "full" in self._providers.get(plan.provider).capabilities.network else "none"
        kinds: dict[str, Kind] = {}
        for name in allotted:
            if self._rests_still(name):
                continue
            try:
                template = self._template(name)
                kind = home.kind(template, template.limits, network)
            except NexusError as error:
                self._rest(name)
                report.met(f"pool of template {name}", error)
                continue
            if kind is None:
                self._rest(name)
                report.problems.append(f"pool of template {name}: such sandboxes cannot be kept ready")
            else:
                kinds[name] = kind
        self._weed(plan, kinds, report)
        for name, kind in kinds.items():
            for slot in range(allotted[name]):
                if stop() or self._rests_still(name):
                    break
                self._fill_slot(plan, home, self._template(name), slot, kind, network, report)

    def _weed(self, plan: PoolPlan, kinds: dict[str, Kind], report: Report) -> None:
        """Retire what is no longer wanted, where it can be seen: members in other places are others' to judge."""
        allotted, places = plan.allotted(), {kind.place for kind in kinds.values()}
        for member in self._queries.members():
            if member.status is not MemberState.READY or member.provider != plan.provider or member.place not in places:
                continue
            kind = kinds.get(member.template)
            if member.slot >= allotted.get(member.template, 0):
                self._ending.end(member.member_id, RetireReason.SURPLUS, report)
            elif kind is not None and kind.digest != member.kind:
                self._ending.end(member.member_id, RetireReason.OUTDATED, report)

    def _fill_slot(
        self,
        plan: PoolPlan,
        home: WarmPool,
        template: Template,
        slot: int,
        kind: Kind,
        network: NetworkPolicy,
        report: Report,
    ) -> None:
        cause = own_cause("fill")
        lifetime, deadline = timedelta(seconds=plan.lifetime), timedelta(seconds=self._limits.create_deadline)
        member = self._members.request(
            plan.provider, template, slot, kind, network, lifetime, deadline, self._liveness.me, cause
        )
        if member is None:
            return
        self._step("pool.intent")
        spec = MemberSpec(
            member_id=member.member_id,
            installation=self._store.installation,
            template=template,
            expires_at=member.expires_at,
            limits=template.limits,
            network=network,
        )
        try:
            ref = home.prepare(spec)
        except BaseException as error:
            self._failed(template.name, member.member_id, cause, error)
            if not isinstance(error, ProviderError):
                raise
            report.met(f"pool of template {template.name}", error)
            return
        self._step("pool.effect")
        self._rests.pop(template.name, None)
        try:
            self._members.record(member.member_id, lambda m: decisions.made(m, ref.to_json()), cause)
        except NotReady:
            home.withdraw(member.member_id, self._store.installation)
            return
        report.pool.append(f"{plan.provider}:{member.member_id} is ready for template {template.name}")

    def _failed(self, template: str, member_id: str, cause: Cause, error: BaseException) -> None:
        self._rest(template)
        try:
            self._ending.retire(member_id, RetireReason.FAILED, cause, detail=described(error)[1])
        except NexusError:
            return  # settled later
        self._ending.remove_quietly(member_id, cause)

    def _rest(self, template: str) -> None:
        """Leave it alone for a while, twice as long each time: each failure is some events, or a line to read."""
        times = self._rests.get(template, (0, 0.0))[0] + 1
        self._rests[template] = (times, self._clock.monotonic() + min(2.0**times, _LONGEST_REST))

    def _rests_still(self, template: str) -> bool:
        return self._clock.monotonic() < self._rests.get(template, (0, 0.0))[1]
