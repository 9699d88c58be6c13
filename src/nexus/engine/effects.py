"""Effects: carry out a recorded intent at the provider, and record what came of it.

The process that recorded the intent and the one that takes it over run the same code. Each effect may be repeated;
an outcome with an old attempt number is refused by the aggregate (`Superseded`), and what it made is looked at again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import tenacity

from nexus.domain import commands as cmd
from nexus.domain.decisions import Superseded
from nexus.domain.errors import (
    NexusError,
    ProviderError,
    ProviderGone,
    ProviderRateLimited,
    StoreError,
    StreamConflict,
)
from nexus.domain.policies import Limits
from nexus.domain.ports import Clock, EventStore
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.provider import NetworkPolicy, Observed, Provider, Ref, SandboxSpec, Template
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Operation, SandboxState, StopReason
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Steps, Streams

T = TypeVar("T")

PROVIDER_GRACE: Final = timedelta(seconds=30)
"""A provider that owns a deadline gets ours plus this, so that our own expiry comes first and names the reason."""

_MESSAGE_LIMIT: Final = 500
_ATTEMPTS: Final = 4
_PATIENCE: Final = 10.0
"""Seconds after which an effect that fails is not tried once more."""


class Effects:
    """The side of the engine that talks to providers about whole sandboxes."""

    def __init__(
        self,
        streams: Streams,
        providers: Providers,
        clock: Clock,
        limits: Limits,
        template: Callable[[str | None], Template],
        steps: Steps,
    ) -> None:
        self._streams = streams
        self._providers = providers
        self._clock = clock
        self._limits = limits
        self._template = template
        self._step = steps

    @property
    def store(self) -> EventStore:
        return self._streams.store

    def provider(self, state: Sandbox) -> Provider:
        return self._providers.get(state.provider)

    def spec(self, state: Sandbox, generation: int, end: datetime, env: Mapping[str, str] | None = None) -> SandboxSpec:
        """What the provider is told. `env` is known only to the process that was asked to create."""
        network: NetworkPolicy = "none" if state.network == "none" else "full"
        return SandboxSpec(
            sandbox_id=state.sandbox_id,
            generation=generation,
            installation=self.store.installation,
            name=state.name,
            template=self._template(state.template_id),
            expires_at=end + PROVIDER_GRACE,
            limits=ResourceLimits(**state.limits),  # type: ignore[arg-type]  # recorded from a checked value
            network=network,
            env=env or {},
            labels=state.labels,
        )

    # --- create --------------------------------------------------------------------------------------------------
    def create(
        self,
        state: Sandbox,
        cause: Cause,
        env: Mapping[str, str],
        notes: tuple[str, ...] = (),
        adopt: Callable[[SandboxSpec], Observed | None] | None = None,
    ) -> Sandbox:
        """Make the resource and record `SandboxStarted`, or clean up and record `SandboxFailed`.

        `adopt` gives the resource that was made before anybody asked, if there is one.
        """
        attempt = self._attempt(state, Operation.CREATE)
        provider = self.provider(state)
        end = self.store.now() + timedelta(seconds=self._limits.create_deadline) + state.ttl
        try:
            spec = self.spec(state, 1, end, env)
            observed = (adopt and adopt(spec)) or self._patiently(lambda: provider.ensure(spec))
        except BaseException as error:
            self._creation_failed(state, provider, attempt, cause, error)
            raise
        self._step("create.effect")
        observed = replace(observed, notes=(*observed.notes, *notes))
        return self._started(state, provider, attempt, cause, observed)

    def adopt(self, state: Sandbox, cause: Cause) -> Sandbox:
        """Carry on a creation whose creator is gone: adopt what was made, or give up and leave nothing behind.

        Nothing is made anew here: the creator's caller is gone too, and the values of the environment variables
        that the sandbox was to have are known to nobody.
        """
        attempt = self._attempt(state, Operation.CREATE)
        provider = self.provider(state)
        found = [seen for seen in provider.find(state.sandbox_id, self.store.installation) if seen.condition != "gone"]
        # Recorded first, then cleaned up: whoever was overtaken meanwhile must not touch what the next one adopted.
        # What cannot be removed now is no live sandbox's, and the orphan sweep removes it.
        if found:
            adopted = self._started(state, provider, attempt, cause, found[0])
            if adopted.ref == found[0].ref.to_json():
                with contextlib.suppress(ProviderError):
                    for extra in found[1:]:
                        provider.destroy(extra.ref)
            return adopted
        command = cmd.RecordFailed(
            attempt=attempt,
            error="creator_lost",
            message="whoever was creating the sandbox is gone, and nothing was there to adopt",
            reason=StopReason.ORPHANED,
        )
        failed = self._streams.execute(state.sandbox_id, command, cause).state
        with contextlib.suppress(ProviderError):
            provider.discard(state.sandbox_id, self.store.installation)
        return failed

    def _started(self, state: Sandbox, provider: Provider, attempt: int, cause: Cause, observed: Observed) -> Sandbox:
        command = cmd.RecordStarted(
            attempt=attempt, ref=observed.ref.to_json(), incarnation=observed.incarnation, notes=observed.notes
        )
        try:
            return self._streams.execute(state.sandbox_id, command, cause).state
        except Superseded:
            # Stopped meanwhile: the resource is nobody's. Taken over: it belongs to whoever adopted it.
            current = self._streams.get(state.sandbox_id)
            stopping = current.pending is not None and current.pending.operation is Operation.STOP
            if current.state is SandboxState.STOPPED or stopping:
                provider.destroy(observed.ref)
                raise
            return current

    def _creation_failed(
        self, state: Sandbox, provider: Provider, attempt: int, cause: Cause, error: BaseException
    ) -> None:
        """Record first, then clean up: once the failure is recorded nobody can adopt what is about to go, and what
        cannot be removed now belongs to a stopped sandbox, which the orphan sweep removes."""
        code, message = described(error)
        try:
            self._streams.execute(
                state.sandbox_id, cmd.RecordFailed(attempt=attempt, error=code, message=message), cause
            )
            provider.discard(state.sandbox_id, self.store.installation)
        except (Superseded, StoreError, ProviderError):
            return

    # --- pause and resume ----------------------------------------------------------------------------------------
    def pause(self, state: Sandbox, cause: Cause) -> Sandbox:
        """Pause and record it; when the provider could not, the sandbox stays active and that is recorded."""
        attempt = self._attempt(state, Operation.PAUSE)
        provider, ref = self.provider(state), ref_of(state)
        saved: list[Sandbox] = []

        def save(paused: Ref) -> None:
            command = cmd.RecordPaused(attempt=attempt, ref=paused.to_json())
            saved.append(self._streams.execute(state.sandbox_id, command, cause).state)
            self._step("pause.saved")

        try:
            paused = self._patiently(lambda: provider.pause(ref, save))
        except ProviderGone as error:
            return self.gone(state, cause, error)
        except BaseException as error:
            if not saved:
                self._not_paused(state, provider, ref, attempt, cause, error)
            raise
        self._step("pause.effect")
        if not saved:
            save(paused)
        return saved[-1]

    def _not_paused(
        self, state: Sandbox, provider: Provider, ref: Ref, attempt: int, cause: Cause, error: BaseException
    ) -> None:
        if not isinstance(error, ProviderError) or error.effect == "unknown":
            try:
                if provider.inspect(ref).condition != "running":
                    return  # it may be paused: the intent stays open and recovery repeats it
            except ProviderError:
                return
        code, message = described(error)
        self._record_quietly(state, cmd.RecordPauseFailed(attempt=attempt, error=code, message=message), cause)

    def resume(self, state: Sandbox, cause: Cause) -> Sandbox:
        """Resume and record it; a resource that is proven gone is recorded as lost."""
        attempt = self._attempt(state, Operation.RESUME)
        provider, ref = self.provider(state), ref_of(state)
        generation = state.generation + (0 if provider.capabilities.ref_survives_pause else 1)
        left = state.remaining_seconds if state.remaining_seconds is not None else float(state.ttl_seconds)
        end = self.store.now() + timedelta(seconds=left + self._limits.operation_deadline)
        try:
            observed = self._patiently(lambda: provider.resume(self.spec(state, generation, end), ref))
        except ProviderGone as error:
            return self.gone(state, cause, error)
        except BaseException as error:
            if isinstance(error, ProviderError) and error.effect == "none":
                code, message = described(error)
                self._record_quietly(state, cmd.RecordResumeFailed(attempt=attempt, error=code, message=message), cause)
            raise
        self._step("resume.effect")
        command = cmd.RecordResumed(
            attempt=attempt,
            ref=observed.ref.to_json(),
            generation=generation,
            incarnation=observed.incarnation,
            notes=observed.notes,
        )
        return self._streams.execute(state.sandbox_id, command, cause).state

    # --- stop ----------------------------------------------------------------------------------------------------
    def stop(self, state: Sandbox, cause: Cause, *, thorough: bool) -> Sandbox:
        """Destroy and record it. `thorough` also removes what carries the id without being the current resource:
        needed when an operation that makes resources may have been cut short."""
        attempt = self._attempt(state, Operation.STOP)
        provider = self.provider(state)

        def destroy() -> None:
            if state.ref is not None:
                provider.destroy(Ref.from_json(state.ref))
            if thorough or state.ref is None:
                provider.discard(state.sandbox_id, self.store.installation)

        self._patiently(destroy)
        self._step("stop.effect")
        try:
            return self._streams.execute(state.sandbox_id, cmd.RecordStopped(attempt=attempt), cause).state
        except Superseded:
            current = self._streams.get(state.sandbox_id)
            if current.state is SandboxState.STOPPED:
                return current
            raise

    def extend(self, state: Sandbox, until: datetime, cause: Cause) -> None:
        """Tell a provider that owns a deadline. It is recorded already, and so it is true, whatever the provider says:
        one that cannot be reached is told with the next run, or by the next reconcile."""
        try:
            self.provider(state).extend(ref_of(state), until + PROVIDER_GRACE)
        except ProviderGone as error:
            self.gone(state, cause, error)
        except ProviderError:
            return

    def gone(self, state: Sandbox, cause: Cause, error: ProviderGone) -> Sandbox:
        """The provider says that the resource is gone: look at it once more, record the loss, and say so."""
        current = self._streams.get(state.sandbox_id)
        if current.state is not SandboxState.STOPPED and current.ref is not None:
            observed = self.provider(current).inspect(Ref.from_json(current.ref))
            if observed.condition == "gone":
                command = cmd.RecordLost(detail=described(error)[1])
                # Somebody else moved on meanwhile: whoever finds it next, or reconcile, looks at it as it is then.
                with contextlib.suppress(StreamConflict):
                    self._streams.execute(state.sandbox_id, command, cause, expected=current.version)
        raise error

    # --- common --------------------------------------------------------------------------------------------------
    @staticmethod
    def _attempt(state: Sandbox, operation: Operation) -> int:
        if state.pending is None or state.pending.operation is not operation:
            raise ValueError(f"no {operation} is in flight for {state.sandbox_id}")
        return state.pending.attempt

    def _record_quietly(self, state: Sandbox, command: cmd.Command, cause: Cause) -> None:
        """Record a failure that is being raised already; when that fails too, recovery concludes it later."""
        try:
            self._streams.execute(state.sandbox_id, command, cause)
        except (Superseded, StoreError):
            return

    def _patiently(self, effect: Callable[[], T]) -> T:
        """Try again while the provider says "later"; effects may be repeated, so an unknown outcome may be too.

        A provider that takes its time to say so has been patient itself: then its caller has waited long enough.
        """
        until = self._clock.monotonic() + _PATIENCE
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, ProviderError) and e.retryable),
            stop=lambda state: state.attempt_number >= _ATTEMPTS or self._clock.monotonic() >= until,
            wait=_retry_wait,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return retrying(effect)


_jittered = tenacity.wait_random_exponential(multiplier=0.1, max=2)


def _retry_wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, ProviderRateLimited) and error.retry_after else 0.0
    return max(min(asked, 10.0), _jittered(state))


def ref_of(state: Sandbox) -> Ref:
    """The current resource of a sandbox that has one."""
    if state.ref is None:
        raise ValueError(f"sandbox {state.sandbox_id} has no resource")
    return Ref.from_json(state.ref)


def described(error: BaseException) -> tuple[str, str]:
    """Code and message of an error as they may be recorded: bounded, and never the text of a foreign exception."""
    if isinstance(error, NexusError):
        return error.code, error.message[:_MESSAGE_LIMIT]
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted"
    return "internal", type(error).__name__
