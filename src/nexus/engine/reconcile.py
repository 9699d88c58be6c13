"""Reconcile: make the providers' resources and the live sandboxes the same set again.

The two directions read in opposite order, and both orders matter. *Orphans*: list the provider first, then read the
store, because an intent is stored before its resource is made, so what is listed and unknown can only be nobody's.
*Ghosts*: read the store at a version first, then look at that one resource, then append at that very version. An
error from a provider proves nothing and concludes nothing.
"""

from __future__ import annotations

from nexus.domain import commands as cmd
from nexus.domain.errors import ConfigurationError, NexusError, ProviderError, StreamConflict
from nexus.domain.policies import Limits, is_young
from nexus.domain.provider import Observed, Provider, Ref
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import SandboxState, system_principal
from nexus.engine.effects import Effects
from nexus.engine.pool import Pool
from nexus.engine.recovery import Recovery, Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Streams
from nexus.projections.queries import SandboxQueries


class Reconciler:
    """Safe to run anywhere and at any time, several at once too."""

    def __init__(
        self,
        streams: Streams,
        effects: Effects,
        recovery: Recovery,
        pool: Pool,
        queries: SandboxQueries,
        providers: Providers,
        limits: Limits,
    ) -> None:
        self._streams = streams
        self._effects = effects
        self._recovery = recovery
        self._pool = pool
        self._queries = queries
        self._providers = providers
        self._limits = limits

    def reconcile(self) -> Report:
        """Settle what is due, remove orphans, find ghosts and drift; says what was done and what could not be."""
        report = Report()
        self._recovery.sweep(report)
        for name in self._queries.providers():
            try:
                provider = self._providers.get(name)
            except ConfigurationError as error:
                report.problems.append(f"provider {name}: {error.message}")
                continue
            self._orphans(provider, report)
        for sandbox_id in self._queries.live():
            self._look_at(sandbox_id, report)
        self._pool.reconcile(self._queries.providers(), report)
        return report

    # --- orphans -------------------------------------------------------------------------------------------------
    def _orphans(self, provider: Provider, report: Report) -> None:
        try:
            resources = list(provider.owned(self._streams.store.installation))
        except ProviderError as error:
            report.problems.append(f"provider {provider.name} cannot list: {error.message}")
            return
        for seen in resources:
            try:
                self._judge(provider, seen, report)
            except NexusError as error:
                report.problems.append(f"{provider.name} resource of {seen.sandbox_id}: {error.message}")

    def _judge(self, provider: Provider, seen: Observed, report: Report) -> None:
        state = self._streams.load(seen.sandbox_id)
        if state is None:
            if self._is_young(seen):
                return
        elif state.state is SandboxState.STOPPED:
            self._drift(state, "orphan_removed", "a resource of this stopped sandbox was still there", report)
        elif state.pending is not None or state.ref is None or state.ref == seen.ref.to_json():
            return  # its own, or an operation that will sort it out
        elif state.ref["data"] == dict(seen.ref.data) or self._is_young(seen):
            return
        else:
            self._drift(state, "extra_resource_removed", "a second resource carried this sandbox's id", report)
        if provider.destroy(seen.ref):
            report.orphans.append(f"{provider.name}:{seen.sandbox_id}")

    def _is_young(self, seen: Observed) -> bool:
        """Within the grace; one without a known age is judged by the read order alone."""
        return is_young(self._limits, seen.created_at, self._streams.store.now())

    # --- ghosts and drift ----------------------------------------------------------------------------------------
    def _look_at(self, sandbox_id: str, report: Report) -> None:
        try:
            self.verify(self._streams.get(sandbox_id), report)
        except StreamConflict:
            return  # it moved on meanwhile: the next reconcile looks again
        except NexusError as error:
            report.problems.append(f"{sandbox_id}: {error.message}")

    def verify(self, state: Sandbox, report: Report) -> Sandbox:
        """Hold one sandbox against its resource. Raises what the provider raises: no answer is no proof."""
        live = state.state in (SandboxState.ACTIVE, SandboxState.PAUSED)
        if not live or state.pending is not None or state.ref is None:
            return state
        provider = self._effects.provider(state)
        ref = Ref.from_json(state.ref)
        cause = Cause.of(system_principal("reconcile", state.tenant_id), "reconcile")
        seen = provider.inspect(ref)
        if seen.condition == "gone":
            command = cmd.RecordLost(detail=f"the {provider.name} resource is gone")
            recorded = self._streams.execute(state.sandbox_id, command, cause, expected=state.version)
            report.lost.append(state.sandbox_id)
            return recorded.state
        state = self._put_right(state, provider, seen, report)
        if seen.incarnation and state.incarnation and seen.incarnation != state.incarnation:
            state = self._restarted(state, seen, cause, report)
        if seen.ends_at is not None and state.expires_at is not None and seen.ends_at < state.expires_at:
            self._effects.extend(state, state.expires_at, cause)  # it could not be told when that was decided
        return state

    def _put_right(self, state: Sandbox, provider: Provider, seen: Observed, report: Report) -> Sandbox:
        """What was paused or resumed behind our back becomes again what the log says."""
        if seen.condition == "paused" and state.state is SandboxState.ACTIVE:
            state = self._drift(state, "paused", "it was paused behind our back; resumed", report)
            end = state.expires_at or self._streams.store.now()
            provider.resume(self._effects.spec(state, state.generation, end), seen.ref)
        elif seen.condition == "running" and state.state is SandboxState.PAUSED:
            state = self._drift(state, "resumed", "it was resumed behind our back; paused again", report)
            provider.pause(seen.ref, lambda _ref: None)
        return state

    def _restarted(self, state: Sandbox, seen: Observed, cause: Cause, report: Report) -> Sandbox:
        for execution_id in state.executions:
            command = cmd.LoseExecution(execution_id=execution_id, reason="the sandbox was restarted")
            state = self._streams.execute(state.sandbox_id, command, cause).state
            report.runs_lost.append(execution_id)
        detail = "it was restarted behind our back; its processes are lost"
        return self._drift(state, "restarted", detail, report, incarnation=seen.incarnation)

    def _drift(
        self, state: Sandbox, kind: str, detail: str, report: Report, *, incarnation: str | None = None
    ) -> Sandbox:
        cause = Cause.of(system_principal("reconcile", state.tenant_id), "reconcile")
        command = cmd.ObserveDrift(kind=kind, detail=detail, incarnation=incarnation)
        report.drifted.append(f"{state.sandbox_id}: {detail}")
        return self._streams.execute(state.sandbox_id, command, cause).state
