"""Holding members against resources, in both read orders, as `nexus.engine.reconcile` explains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nexus.domain.errors import ConfigurationError, NexusError, ProviderError, StreamConflict
from nexus.domain.policies import Limits, is_young
from nexus.domain.pool import NotReady
from nexus.domain.provider import Provider, Ref
from nexus.domain.values import MemberState, RetireReason, SandboxState
from nexus.domain.warm_pool import Pooled, WarmPool
from nexus.engine.pool.ending import Ending, own_cause
from nexus.engine.pool.members import Members
from nexus.engine.recovery import Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Streams
from nexus.projections.pool import MemberView, PoolQueries


class Comparing:
    """An error from a provider proves nothing and concludes nothing."""

    def __init__(
        self,
        streams: Streams,
        members: Members,
        ending: Ending,
        queries: PoolQueries,
        providers: Providers,
        limits: Limits,
    ) -> None:
        self._streams = streams
        self._store = streams.store
        self._members = members
        self._ending = ending
        self._queries = queries
        self._providers = providers
        self._limits = limits

    def compare(self, providers: set[str], report: Report) -> None:
        """The pools of these providers, and of all that have members."""
        wanted = {*providers, *(member.provider for member in self._queries.members())}
        for name in sorted(wanted):
            try:
                provider = self._providers.get(name)
            except ConfigurationError as error:
                if name not in providers:
                    report.met(f"provider {name}", error)
                continue
            if isinstance(provider, WarmPool):
                self._compare(provider, provider, report)

    def _compare(self, provider: Provider, home: WarmPool, report: Report) -> None:
        waiting = [m for m in self._queries.members() if (m.provider, m.status) == (provider.name, MemberState.READY)]
        try:
            seen = {each.member_id: each for each in home.pooled(self._store.installation)}
        except ProviderError as error:
            report.met(f"provider {provider.name} cannot list its pool", error)
            return
        for member in waiting:
            condition = seen[member.member_id].condition if member.member_id in seen else "gone"
            if condition != "running":
                self._carefully(member.member_id, report, partial(self._ghost, provider, member, report))
        for member_id, each in seen.items():
            self._carefully(member_id, report, partial(self._judge, home, each, report))

    def _carefully(self, member_id: str, report: Report, act: Callable[[], None]) -> None:
        try:
            act()
        except (StreamConflict, NotReady):
            return  # it moved on meanwhile: the next reconcile looks again
        except NexusError as error:
            report.problems.append(f"pool member {member_id}: {error.message}")

    def _ghost(self, provider: Provider, member: MemberView, report: Report) -> None:
        """It was ready when the store was read, and then it was not there: look at that very one, record at that
        very version."""
        ref = self._members.get(member.member_id).ref
        if ref is None:
            return
        condition = provider.inspect(Ref.from_json(ref)).condition
        if condition == "running":
            return
        reason = RetireReason.LOST if condition == "gone" else RetireReason.UNFIT
        detail = "" if condition == "gone" else f"it is {condition}"
        self._ending.retire(member.member_id, reason, own_cause("reconcile"), detail=detail, expected=member.version)
        self._ending.end(member.member_id, reason, report)

    def _judge(self, home: WarmPool, seen: Pooled, report: Report) -> None:
        """A resource of the pool was listed, and then the store is asked what explains it."""
        member_id = seen.member_id
        member = self._members.load(member_id)
        if member is None or member.state is MemberState.REMOVED:
            if not (member is None and self._is_young(seen)) and home.withdraw(member_id, self._store.installation):
                report.orphans.append(f"pool:{member_id}")
        elif member.state is MemberState.TAKEN:
            sandbox = self._streams.load(member.sandbox_id or "")
            if sandbox is None or sandbox.state is SandboxState.STOPPED:
                self._ending.end(member_id, RetireReason.STRANDED, report)

    def _is_young(self, seen: Pooled) -> bool:
        """Within the grace; one without a known age is judged by the read order alone."""
        return is_young(self._limits, seen.created_at, self._store.now())
