"""The engine: every command and query of the product, with a principal on each.

This is the domain API that agent frameworks, the facade, the command line and servers build on. Sync and
thread-safe; nothing is imported from a provider's SDK before that provider is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Self

from nexus.domain import commands as cmd
from nexus.domain import validation
from nexus.domain.errors import (
    InvalidInput,
    NameTaken,
    OperationFailed,
    ProviderError,
    ProviderUnsupported,
    SandboxBusy,
)
from nexus.domain.lifecycle import target
from nexus.domain.policies import Limits, authorize, operation_deadline
from nexus.domain.ports import Clock, EventStore, Liveness
from nexus.domain.provider import Capabilities, NetworkPolicy, OutputSink, Template
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Action, Operation, Principal, SandboxState
from nexus.engine.creation import Creation, Wanted
from nexus.engine.effects import Effects, ref_of
from nexus.engine.executions import Execution, Executions, Program
from nexus.engine.history import History
from nexus.engine.reconcile import Reconciler
from nexus.engine.recovery import Recovery, Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Steps, Streams, no_steps, owner_of
from nexus.engine.views import view_of
from nexus.projections import TABLES
from nexus.projections.queries import Page, SandboxQueries
from nexus.projections.views import SandboxView

_JOIN_POLL = 0.02
"""Seconds between looks at an operation that another process has in flight."""


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
        steps: Steps = no_steps,
    ) -> None:
        store.views.create(TABLES)
        self.store = store
        self.providers = providers
        self.limits = limits or Limits()
        self.queries = SandboxQueries(store.views)
        self.history = History(store, self.queries)
        self._clock = clock
        self._liveness = liveness
        self._step = steps
        self._template = template or (lambda name: Template(name=name or "default"))
        self.streams = Streams(store, clock)
        self._effects = Effects(self.streams, providers, clock, self.limits, self._template, steps)
        self._executions = Executions(self.streams, self._effects, liveness, self.limits, steps)
        self.recovery = Recovery(self.streams, self._effects, self._executions, self.queries, liveness, self.limits)
        self._reconciler = Reconciler(self.streams, self._effects, self.recovery, self.queries, providers, self.limits)
        self._creation = Creation(self.streams, self.recovery, liveness, self.limits, steps)

    # --- create --------------------------------------------------------------------------------------------------
    def create(
        self,
        principal: Principal,
        name: str,
        *,
        ttl_minutes: int | None = None,
        provider: str | None = None,
        template: str | None = None,
        network: NetworkPolicy = "full",
        limits: ResourceLimits | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> SandboxView:
        """Create a sandbox and wait until it is active.

        With an idempotency key, the same request again returns the same sandbox; with other parameters it raises
        `IdempotencyMismatch`. The values of `env` reach the sandbox and nothing else.
        """
        wanted = self._wanted(principal, name, ttl_minutes, provider, template, network, limits, labels, env)
        key = None if idempotency_key is None else validation.idempotency_key(idempotency_key)
        cause = Cause.of(principal, "create")
        state, mine = self._creation.begin(wanted, key, cause)
        if mine is not None:
            return view_of(self._effects.create(state, mine, wanted.env))
        state = self._settled_operation(state, Operation.CREATE)
        if state.state is SandboxState.STOPPED and state.started_at is None:
            raise OperationFailed(
                f"Sandbox {state.sandbox_id} could not be created: {state.last_error}", sandbox_id=state.sandbox_id
            )
        return view_of(state)

    def get_or_create(
        self,
        principal: Principal,
        name: str,
        *,
        ttl_minutes: int | None = None,
        provider: str | None = None,
        template: str | None = None,
        network: NetworkPolicy = "full",
        limits: ResourceLimits | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> SandboxView:
        """The live sandbox of this name, or a new one. Several callers at once get the same one."""
        while True:
            try:
                return self.create(
                    principal,
                    name,
                    ttl_minutes=ttl_minutes,
                    provider=provider,
                    template=template,
                    network=network,
                    limits=limits,
                    labels=labels,
                    env=env,
                )
            except NameTaken as taken:
                state = self._settled_operation(self.streams.get(taken.details["sandbox_id"]), Operation.CREATE)
                if state.state is not SandboxState.STOPPED:
                    return view_of(state)

    # --- run -----------------------------------------------------------------------------------------------------
    def run(
        self,
        principal: Principal,
        reference: str,
        *,
        language: str = "python",
        code: str | bytes | None = None,
        argv: Sequence[str] | None = None,
        timeout: int | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        fresh: bool = False,
        on_output: OutputSink | None = None,
    ) -> Execution:
        """Run code, or a command given as `argv`, and wait for its end.

        A program that fails is a result with its exit code. Raises `ExecutionTimedOut` (with the partial output),
        `ExecutionLost` when nobody knows how it ended, `IllegalTransition` unless the sandbox is active.
        """
        program = self._program(language, code, argv, timeout, stdin, env, fresh)
        state = self._own(principal, reference, Action.RUN)
        capabilities = self._effects.provider(state).capabilities
        if program.argv is None and program.language not in capabilities.languages:
            self._refuse(state, f"run {program.language}", lambda c: program.language in c.languages)
        if program.argv is not None and not capabilities.argv:
            self._refuse(state, "run a command", lambda c: c.argv)
        if program.stdin and not capabilities.stdin:
            self._refuse(state, "pass standard input", lambda c: c.stdin)
        return self._executions.run(state, program, Cause.of(principal, "run"), on_output)

    # --- pause, resume, extend, stop -----------------------------------------------------------------------------
    def pause(self, principal: Principal, reference: str) -> SandboxView:
        """Pause; a paused sandbox keeps its remaining time. Pausing what is paused changes nothing."""
        state = self._own(principal, reference, Action.PAUSE)
        if self._effects.provider(state).capabilities.pause == "none":
            self._refuse(state, "pause", lambda c: c.pause != "none")
        return self._operate(
            state,
            Operation.PAUSE,
            lambda deadline: cmd.RequestPause(deadline=deadline, holder=self._liveness.me),
            lambda before, state, cause: self._effects.pause(state, cause),
            Cause.of(principal, "pause"),
        )

    def resume(self, principal: Principal, reference: str) -> SandboxView:
        """Resume; resuming what is active changes nothing."""
        state = self._own(principal, reference, Action.RESUME)
        return self._operate(
            state,
            Operation.RESUME,
            lambda deadline: cmd.RequestResume(deadline=deadline, holder=self._liveness.me),
            lambda before, state, cause: self._effects.resume(state, cause),
            Cause.of(principal, "resume"),
        )

    def stop(self, principal: Principal, reference: str) -> SandboxView:
        """Destroy the sandbox. Final; stopping what is stopped changes nothing."""
        state = self._own(principal, reference, Action.STOP, settle=False)
        try:
            state = self.recovery.settle(state)
        except ProviderError:
            # What cannot be carried on now is overtaken by the stop.
            state = self.streams.get(state.sandbox_id)
        return self._operate(
            state,
            Operation.STOP,
            lambda deadline: cmd.RequestStop(deadline=deadline, holder=self._liveness.me),
            lambda before, state, cause: self._effects.stop(state, cause, thorough=before.pending is not None),
            Cause.of(principal, "stop"),
        )

    def extend(self, principal: Principal, reference: str, ttl_minutes: int) -> SandboxView:
        """Live at least this many minutes from now on; never shortens."""
        minutes = validation.ttl_minutes(ttl_minutes, self.limits.max_ttl_minutes)
        state = self._own(principal, reference, Action.EXTEND)
        recorded = self.streams.execute(
            state.sandbox_id, cmd.ExtendSandbox(seconds=minutes * 60), Cause.of(principal, "extend")
        )
        state = recorded.state
        if recorded.envelopes and state.state is SandboxState.ACTIVE and state.expires_at is not None:
            self._effects.extend(state, state.expires_at)
        return view_of(state)

    # --- files ---------------------------------------------------------------------------------------------------
    def read_file(self, principal: Principal, reference: str, path: str) -> Iterator[bytes]:
        """A file's bytes, in chunks. The path is resolved inside the sandbox only."""
        state = self._files(principal, reference, path)
        return self._effects.provider(state).read_file(ref_of(state), path, limit=self.limits.max_file_bytes)

    def write_file(self, principal: Principal, reference: str, path: str, chunks: bytes | Iterable[bytes]) -> int:
        """Write a file in the sandbox; returns the bytes written."""
        state = self._files(principal, reference, path)
        parts = [chunks] if isinstance(chunks, bytes) else chunks
        return self._effects.provider(state).write_file(ref_of(state), path, parts, limit=self.limits.max_file_bytes)

    def _files(self, principal: Principal, reference: str, path: str) -> Sandbox:
        validation.guest_path(path)
        state = self._own(principal, reference, Action.FILES)
        if not self._effects.provider(state).capabilities.files:
            self._refuse(state, "copy files", lambda c: c.files)
        target("run", state.state, state.sandbox_id)
        return state

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
        """Make resources and live sandboxes the same set; settle what is due. Needs an operator."""
        authorize(principal, Action.OPERATE, None)
        return self._reconciler.reconcile()

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

    def _operate(
        self,
        state: Sandbox,
        operation: Operation,
        request: Callable[..., cmd.Command],
        effect: Callable[[Sandbox, Sandbox, Cause], Sandbox],
        cause: Cause,
    ) -> SandboxView:
        """Record the intent, carry it out; join the same operation where another process has it in flight."""
        while True:
            deadline = operation_deadline(self.limits, operation, self.store.now())
            try:
                recorded = self.streams.execute(state.sandbox_id, request(deadline), cause)
            except SandboxBusy as busy:
                if busy.details.get("operation") is not operation:
                    raise
                state = self._settled_operation(state, operation)
                continue
            if not recorded.envelopes:
                return view_of(recorded.state)
            self._step(f"{operation}.intent")
            return view_of(effect(state, recorded.state, cause.after(recorded.envelopes[-1])))

    def _settled_operation(self, state: Sandbox, operation: Operation) -> Sandbox:
        """Wait until another's operation has an outcome; take it over once that one is dead or past its deadline."""
        while state.pending is not None and state.pending.operation is operation:
            self._clock.sleep(_JOIN_POLL)
            state = self.recovery.settle(self.streams.get(state.sandbox_id))
        return state

    def _wanted(
        self,
        principal: Principal,
        name: str,
        ttl_minutes: int | None,
        provider: str | None,
        template: str | None,
        network: NetworkPolicy,
        limits: ResourceLimits | None,
        labels: Mapping[str, str] | None,
        env: Mapping[str, str] | None,
    ) -> Wanted:
        name = validation.name(name)
        ttl = self.limits.default_ttl_minutes if ttl_minutes is None else ttl_minutes
        ttl = validation.ttl_minutes(ttl, self.limits.max_ttl_minutes)
        if template is not None:
            validation.identifier(template, "template")
        if network not in ("full", "none"):
            raise InvalidInput(
                f"Unknown network policy {validation.shown(network)}", hint="Use 'full' or 'none'.", field="network"
            )
        checked_labels, checked_env = validation.labels(labels), validation.env(env)
        chosen = self.providers.default() if provider is None else validation.identifier(provider, "provider")
        capabilities = self.providers.get(chosen).capabilities
        resources = validation.limits(limits) if limits is not None else self._template(template).limits
        if network not in capabilities.network:
            raise self._unsupported(chosen, f"network '{network}'", lambda c: network in c.network)
        if capabilities.max_ttl_seconds is not None and ttl * 60 > capabilities.max_ttl_seconds:
            raise InvalidInput(
                f"Provider {chosen} keeps a sandbox for at most {capabilities.max_ttl_seconds // 60} minutes",
                hint="Give a shorter ttl.",
                field="ttl",
            )
        return Wanted(
            name=name,
            user_id=principal.user_id,
            tenant_id=principal.tenant_id,
            agent_id=principal.agent_id,
            provider=chosen,
            template_id=template,
            ttl_seconds=ttl * 60,
            max_age_seconds=int(timedelta(days=self.limits.max_age_days).total_seconds()),
            network=network,
            limits=asdict(resources),
            labels=checked_labels,
            env=checked_env,
        )

    def _program(
        self,
        language: str,
        code: str | bytes | None,
        argv: Sequence[str] | None,
        timeout: int | None,
        stdin: bytes,
        env: Mapping[str, str] | None,
        fresh: bool,
    ) -> Program:
        seconds = validation.timeout(
            self.limits.default_timeout if timeout is None else timeout, self.limits.max_timeout
        )
        if (code is None) == (argv is None):
            raise InvalidInput("Give either code or a command, not both and not neither", field="code")
        if len(stdin) > self.limits.max_code_bytes:
            raise InvalidInput(f"Standard input has more than {self.limits.max_code_bytes} bytes", field="stdin")
        checked_env = tuple(validation.env(env).items())
        if argv is not None:
            return Program("command", seconds, argv=validation.argv(argv), stdin=stdin, env=checked_env, fresh=fresh)
        source = validation.code(code, self.limits.max_code_bytes)
        return Program(validation.language(language), seconds, code=source, stdin=stdin, env=checked_env, fresh=fresh)

    def _refuse(self, state: Sandbox, what: str, can: Callable[[Capabilities], bool]) -> None:
        raise self._unsupported(state.provider, what, can)

    def _unsupported(self, provider: str, what: str, can: Callable[[Capabilities], bool]) -> ProviderUnsupported:
        able = [name for name in self.providers.able(can) if name != provider]
        hint = f"These can: {', '.join(able)}." if able else ""
        return ProviderUnsupported(f"Provider {provider} cannot {what}", hint=hint, provider=provider)
