"""The engine: every command and query of the product, with a principal on each.

This is the domain API that agent frameworks, the facade, the command line and servers build on. Sync and
thread-safe; nothing is imported from a provider's SDK before that provider is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from nexus.adapters.identity import ProcessOrigin
from nexus.domain import commands as cmd
from nexus.domain import validation
from nexus.domain.errors import (
    NameTaken,
    OperationFailed,
    ProviderError,
)
from nexus.domain.lifecycle import target
from nexus.domain.policies import Limits, authorize
from nexus.domain.pool import PoolPlan
from nexus.domain.ports import Clock, EventStore, Liveness
from nexus.domain.provider import OutputSink, Template
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Action, Operation, Principal, SandboxState
from nexus.engine.audit.journal import Journal
from nexus.engine.bodies import Bodies, no_keeping
from nexus.engine.capture import Capture, Keeping, Keyring
from nexus.engine.creation import Begun, Creation, Wanted
from nexus.engine.effects import Effects, ref_of
from nexus.engine.eventlog import EventLog
from nexus.engine.executions import Execution, Executions
from nexus.engine.history import History
from nexus.engine.intents import Intents
from nexus.engine.pool import Pool
from nexus.engine.reconcile import Reconciler
from nexus.engine.recovery import Recovery, Report
from nexus.engine.refusals import Refusals
from nexus.engine.registry import Providers
from nexus.engine.requests import Requests, RunOptions, SandboxOptions
from nexus.engine.streams import Steps, Streams, no_steps, owner_of
from nexus.engine.views import view_of
from nexus.projections import TABLES
from nexus.projections.queries import Page, SandboxQueries
from nexus.projections.views import SandboxView


class Engine:
    """One event store, any number of providers. Close it (or use `with`) when done; sandboxes live on."""

    def __init__(
        self,
        store: EventStore,
        providers: Providers,
        liveness: Liveness,
        clock: Clock,
        *,
        limits: Limits | None = None,
        template: Callable[[str | None], Template] | None = None,
        keeping: Keeping | None = None,
        steps: Steps = no_steps,
        origin: Callable[[], str] | None = None,
        pool: PoolPlan | None = None,
    ) -> None:
        """`keeping` says where code and output are kept, for sandboxes that ask for it; None: nowhere.

        `origin` says from where this engine's events come; by default from a Python program, this process.

        `pool` says what this process keeps ready; what others do is taken by everybody.
        """
        store.views.create(TABLES)
        self.store = store
        self.providers = providers
        self.limits = limits or Limits()
        self.queries = SandboxQueries(store.views)
        self.history = History(store, self.queries)
        self.log = EventLog(store, self.queries)
        self.journal = Journal(self.log)
        template = template or (lambda name: Template(name=name or "default"))
        self._requests = Requests(
            providers,
            self.limits,
            template,
            captures=keeping is not None and keeping.by_default,
            require_capture=self._require_capture,
        )
        self.streams = Streams(store, clock, origin or ProcessOrigin("python"))
        self.refusals = Refusals(self.streams, self.queries)
        self._capture: Capture | None = None
        self._bodies: Bodies | None = None
        if keeping is not None:
            keyring = Keyring(store, keeping)
            self._capture = Capture(store, keeping, keyring)
            self._bodies = Bodies(self.streams, self.queries, self.refusals, keeping, keyring)
        self._effects = Effects(self.streams, providers, clock, self.limits, template, steps)
        self._executions = Executions(self.streams, self._effects, liveness, self.limits, steps, self._capture)
        self.recovery = Recovery(self.streams, self._effects, self._executions, self.queries, liveness, self.limits)
        self._intents = Intents(self.streams, self.recovery, liveness, clock, self.limits, steps)
        self.pool = Pool(self.streams, providers, liveness, clock, self.limits, template, pool, steps)
        self._reconciler = Reconciler(
            self.streams, self._effects, self.recovery, self.pool, self.queries, providers, self.limits
        )
        self._creation = Creation(self.streams, self.recovery, self.pool, liveness, self.limits, steps)

    # --- create --------------------------------------------------------------------------------------------------
    def create(
        self, principal: Principal, name: str, *, idempotency_key: str | None = None, **options: Unpack[SandboxOptions]
    ) -> SandboxView:
        """Create a sandbox and wait until it is active.

        With an idempotency key, the same request again returns the same sandbox; with other parameters it raises
        `IdempotencyMismatch`. The values of `env` reach the sandbox and nothing else.
        """
        with self.refusals.of(principal, "create", name) as cause:
            wanted = self._requests.sandbox(principal, name, **options)
            key = None if idempotency_key is None else validation.idempotency_key(idempotency_key)
            begun = self._creation.begin(wanted, key, cause)
        return self._created(wanted, begun)

    def _created(self, wanted: Wanted, begun: Begun) -> SandboxView:
        if (mine := begun.cause) is not None:
            adopt = None if begun.member is None else partial(self.pool.adopt, begun.member, mine)
            return view_of(self._effects.create(begun.state, mine, wanted.env, wanted.notes, adopt))
        state = self._intents.settled(begun.state, Operation.CREATE)
        if state.state is SandboxState.STOPPED and state.started_at is None:
            raise OperationFailed(
                f"Sandbox {state.sandbox_id} could not be created: {state.last_error}", sandbox_id=state.sandbox_id
            )
        return view_of(state)

    def get_or_create(self, principal: Principal, name: str, **options: Unpack[SandboxOptions]) -> SandboxView:
        """The live sandbox of this name, or a new one. Several callers at once get the same one."""
        while True:
            with self.refusals.of(principal, "create", name) as cause:
                wanted = self._requests.sandbox(principal, name, **options)
                try:
                    begun = self._creation.begin(wanted, None, cause)
                except NameTaken as taken:
                    state = self._intents.settled(self.streams.get(taken.details["sandbox_id"]), Operation.CREATE)
                    if state.state is not SandboxState.STOPPED:
                        return view_of(state)
                    continue
            return self._created(wanted, begun)

    # --- run -----------------------------------------------------------------------------------------------------
    def run(
        self,
        principal: Principal,
        reference: str,
        *,
        on_output: OutputSink | None = None,
        **options: Unpack[RunOptions],
    ) -> Execution:
        """Run code, or a command given as `argv`, and wait for its end.

        A program that fails is a result with its exit code. Raises `ExecutionTimedOut` (with the partial output),
        `ExecutionLost` when nobody knows how it ended, `IllegalTransition` unless the sandbox is active.
        """
        program = self._requests.program(**options)
        with self.refusals.of(principal, "run", reference) as cause:
            state = self._own(principal, reference, Action.RUN)
            self._requests.require_runs(state.provider, program)
            started = self._executions.start(state, program, cause)
        return self._executions.run(started, program, on_output)

    # --- pause, resume, extend, stop -----------------------------------------------------------------------------
    def pause(self, principal: Principal, reference: str) -> SandboxView:
        """Pause; a paused sandbox keeps its remaining time. Pausing what is paused changes nothing."""
        with self.refusals.of(principal, "pause", reference) as cause:
            state = self._own(principal, reference, Action.PAUSE)
            self._requests.require(state.provider, "pause", lambda c: c.pause != "none")
            intent = self._intents.record(state, Operation.PAUSE, cmd.RequestPause, cause)
        return view_of(intent.state if intent.cause is None else self._effects.pause(intent.state, intent.cause))

    def resume(self, principal: Principal, reference: str) -> SandboxView:
        """Resume; resuming what is active changes nothing."""
        with self.refusals.of(principal, "resume", reference) as cause:
            state = self._own(principal, reference, Action.RESUME)
            intent = self._intents.record(state, Operation.RESUME, cmd.RequestResume, cause)
        return view_of(intent.state if intent.cause is None else self._effects.resume(intent.state, intent.cause))

    def stop(self, principal: Principal, reference: str) -> SandboxView:
        """Destroy the sandbox. Final; stopping what is stopped changes nothing."""
        with self.refusals.of(principal, "stop", reference) as cause:
            state = self._own(principal, reference, Action.STOP, settle=False)
            try:
                state = self.recovery.settle(state)
            except ProviderError:
                # What cannot be carried on now is overtaken by the stop.
                state = self.streams.get(state.sandbox_id)
            intent = self._intents.record(state, Operation.STOP, cmd.RequestStop, cause)
        if intent.cause is None:
            return view_of(intent.state)
        return view_of(self._effects.stop(intent.state, intent.cause, thorough=intent.overtaking))

    def extend(self, principal: Principal, reference: str, ttl_minutes: int) -> SandboxView:
        """Live at least this many minutes from now on; never shortens."""
        minutes = validation.ttl_minutes(ttl_minutes, self.limits.max_ttl_minutes)
        with self.refusals.of(principal, "extend", reference) as cause:
            state = self._own(principal, reference, Action.EXTEND)
            recorded = self.streams.execute(state.sandbox_id, cmd.ExtendSandbox(seconds=minutes * 60), cause)
        state = recorded.state
        if recorded.envelopes and state.state is SandboxState.ACTIVE and state.expires_at is not None:
            self._effects.extend(state, state.expires_at, cause.after(recorded.envelopes[-1]))
        return view_of(state)

    # --- files ---------------------------------------------------------------------------------------------------
    def read_file(self, principal: Principal, reference: str, path: str) -> Iterator[bytes]:
        """A file's bytes, in chunks. The path is resolved inside the sandbox only."""
        state = self._files(principal, "read_file", reference, path)
        return self._effects.provider(state).read_file(ref_of(state), path, limit=self.limits.max_file_bytes)

    def write_file(self, principal: Principal, reference: str, path: str, chunks: bytes | Iterable[bytes]) -> int:
        """Write a file in the sandbox; returns the bytes written."""
        state = self._files(principal, "write_file", reference, path)
        parts = [chunks] if isinstance(chunks, bytes) else chunks
        return self._effects.provider(state).write_file(ref_of(state), path, parts, limit=self.limits.max_file_bytes)

    def _files(self, principal: Principal, command: str, reference: str, path: str) -> Sandbox:
        validation.guest_path(path)
        with self.refusals.of(principal, command, reference):
            state = self._own(principal, reference, Action.FILES)
            self._requests.require(state.provider, "copy files", lambda c: c.files)
            target("run", state.state, state.sandbox_id)
        return state

    # --- kept code and output ------------------------------------------------------------------------------------
    @property
    def bodies(self) -> Bodies:
        """Code and output of runs in sandboxes that capture: reading and erasing them."""
        if self._bodies is None:
            raise no_keeping()
        return self._bodies

    def _require_capture(self) -> None:
        if self._capture is None:
            raise no_keeping()
        self._capture.require()

    # --- queries -------------------------------------------------------------------------------------------------
    def resolve(self, principal: Principal, reference: str) -> str:
        """The sandbox id of an id, a unique prefix, or a name."""
        return self.queries.by_reference(reference, principal).sandbox_id

    def status(self, principal: Principal, reference: str) -> SandboxView:
        return self.queries.by_reference(reference, principal)

    def list(
        self,
        principal: Principal,
        *,
        states: Sequence[str] | None = None,
        provider: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        all_users: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """One page of sandboxes, newest first."""
        return self.queries.page(
            principal,
            states=states,
            provider=provider,
            labels=labels,
            name=name,
            all_users=all_users,
            limit=limit,
            cursor=cursor,
        )

    # --- operation of the installation ---------------------------------------------------------------------------
    def reconcile(self, principal: Principal) -> Report:
        """Make resources and live sandboxes the same set; settle what is due; let go of what was kept long enough.

        Needs an operator.
        """
        self.refusals.require_operator(principal, "reconcile")
        report = self._reconciler.reconcile()
        if self._bodies is not None:
            report.bodies_erased += self._bodies.expire(report.problems)
        return report

    def verify(self, principal: Principal, reference: str) -> SandboxView:
        """Hold one sandbox against its resource now, and say what is true."""
        state = self._own(principal, reference, Action.READ)
        return view_of(self._reconciler.verify(state, Report()))

    def sweep(self) -> Report:
        """Settle what is due: what a worker does every few seconds."""
        return self.recovery.sweep()

    def close(self) -> None:
        self.providers.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- inside --------------------------------------------------------------------------------------------------
    def _own(self, principal: Principal, reference: str, action: Action, *, settle: bool = True) -> Sandbox:
        """Resolve, load, authorize, and settle what is due for this one sandbox."""
        state = self.streams.get(self.resolve(principal, reference))
        authorize(principal, action, owner_of(state), reference)
        return self.recovery.settle(state) if settle else state
