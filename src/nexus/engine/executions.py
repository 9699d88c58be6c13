"""Running code: the intent is recorded, the provider runs it at most once, the outcome is recorded, the caller told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

from nexus.domain import commands as cmd
from nexus.domain import ids
from nexus.domain.decisions import Superseded
from nexus.domain.errors import (
    ExecutionLost,
    ExecutionTimedOut,
    ProviderError,
    ProviderGone,
    ProviderOutcomeUnknown,
    StoreError,
)
from nexus.domain.policies import Limits, lease
from nexus.domain.ports import Liveness
from nexus.domain.provider import ExecutionResult, OutputSink, RunRequest
from nexus.domain.sandbox import Sandbox
from nexus.engine.capture import Capture
from nexus.engine.effects import PROVIDER_GRACE, Effects, described, ref_of
from nexus.engine.streams import Cause, Steps, Streams


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that ended by itself. Text is UTF-8; bytes that are not are shown as U+FFFD (`result` has them raw)."""

    execution_id: str
    sandbox_id: str
    language: str
    result: ExecutionResult
    notes: tuple[str, ...] = ()
    """What its caller should know beside the result: that something could not be captured."""

    @property
    def stdout(self) -> str:
        return self.result.stdout.decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.result.stderr.decode(errors="replace")

    @property
    def exit_code(self) -> int:
        return self.result.exit_code

    @property
    def execution_time(self) -> float:
        """Seconds."""
        return self.result.duration

    @property
    def truncated(self) -> bool:
        return self.result.truncated


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be run, already checked: `code` in a language, or an argument list."""

    language: str
    timeout: int
    code: bytes | None = None
    argv: tuple[str, ...] | None = None
    stdin: bytes = b""
    env: tuple[tuple[str, str], ...] = ()
    fresh: bool = False
    session: str | None = None

    @property
    def body(self) -> bytes:
        return self.code if self.code is not None else "\0".join(self.argv or ()).encode()


@dataclass(frozen=True, slots=True)
class Started:
    """A run whose intent is recorded, the state with it, and the cause of what comes of it."""

    command: cmd.StartExecution
    state: Sandbox
    cause: Cause


class Executions:
    """The side of the engine that runs code."""

    def __init__(
        self,
        streams: Streams,
        effects: Effects,
        liveness: Liveness,
        limits: Limits,
        steps: Steps,
        capture: Capture | None = None,
    ) -> None:
        self._streams = streams
        self._effects = effects
        self._liveness = liveness
        self._limits = limits
        self._step = steps
        self._capture = capture

    def start(self, state: Sandbox, program: Program, cause: Cause) -> Started:
        """Record the intent to run, or raise what the sandbox's state has against it."""
        now = self._streams.store.now()
        body = program.body
        start = cmd.StartExecution(
            execution_id=ids.execution_id(uuid4()),
            language=program.language,
            code_sha256=hashlib.sha256(body).hexdigest(),
            code_bytes=len(body),
            timeout=program.timeout,
            lease_until=lease(self._limits, program.timeout, now),
            holder=self._liveness.me,
            session=program.session,
        )
        recorded = self._streams.execute(state.sandbox_id, start, cause)
        self._step("run.intent")
        return Started(start, recorded.state, cause.after(recorded.envelopes[-1]))

    def run(self, started: Started, program: Program, on_output: OutputSink | None) -> Execution:
        """Run once. Raises `ExecutionTimedOut` with the partial output, `ExecutionLost` when nobody knows."""
        start, state, cause = started.command, started.state, started.cause
        request = RunRequest(
            execution_id=start.execution_id,
            timeout=program.timeout,
            language=program.language,
            code=program.code,
            argv=program.argv,
            stdin=program.stdin,
            env=dict(program.env),
            mode="fresh" if program.fresh else "warm",
            session=program.session,
            keep_until=start.lease_until + timedelta(seconds=state.ttl_seconds) + PROVIDER_GRACE,
        )
        captured = None
        try:
            if state.capture and self._capture is not None:
                captured = self._capture.begin(state, start.execution_id, program.body)
            result = self._effects.provider(state).run(ref_of(state), request, on_output)
        except BaseException as error:
            self._ended_without_result(state, start.execution_id, cause, error)
            raise
        self._step("run.effect")
        execution = Execution(start.execution_id, state.sandbox_id, program.language, result)
        self._finish(execution, cause)
        if captured is not None:
            captured.output(result)
            execution = replace(execution, notes=tuple(captured.notes))
        elif state.capture:
            execution = replace(execution, notes=("Nothing was captured: this engine keeps neither code nor output",))
        if result.timed_out:
            raise ExecutionTimedOut(
                timeout=program.timeout,
                stdout=execution.stdout,
                stderr=execution.stderr,
                execution_id=execution.execution_id,
                execution_time=result.duration,
                truncated=result.truncated,
                execution=execution,
            )
        return execution

    def lose(self, state: Sandbox, execution_id: str, reason: str, cause: Cause) -> Sandbox:
        """Say that nobody knows how a run ended, after making sure that it does not run any more."""
        if state.ref is not None:
            try:
                self._effects.provider(state).cancel(ref_of(state), execution_id)
            except ProviderGone:
                pass  # then it does not run
        command = cmd.LoseExecution(execution_id=execution_id, reason=reason)
        return self._streams.execute(state.sandbox_id, command, cause).state

    def _finish(self, execution: Execution, cause: Cause) -> None:
        command = cmd.FinishExecution(
            execution_id=execution.execution_id,
            result=execution.result,
            stdout_sha256=hashlib.sha256(execution.result.stdout).hexdigest(),
            stderr_sha256=hashlib.sha256(execution.result.stderr).hexdigest(),
        )
        try:
            self._streams.execute(execution.sandbox_id, command, cause)
        except Superseded as error:
            raise ExecutionLost(
                f"Execution {execution.execution_id} was given up before its outcome arrived",
                execution_id=execution.execution_id,
                sandbox_id=execution.sandbox_id,
            ) from error
        except StoreError as error:
            # "Nothing was recorded" would sound as if nothing had happened. The log will say lost, so this does too.
            raise ExecutionLost(
                f"Execution {execution.execution_id} ended with exit code {execution.exit_code}, "
                f"but that could not be recorded: {error.message}",
                execution_id=execution.execution_id,
                sandbox_id=execution.sandbox_id,
                execution=execution,
            ) from error

    def _ended_without_result(self, state: Sandbox, execution_id: str, cause: Cause, error: BaseException) -> None:
        code, message = described(error)
        unknown = isinstance(error, ProviderOutcomeUnknown)
        if isinstance(error, ProviderError) and not unknown:
            reason = f"it did not run: {message}"
        elif unknown:
            reason = message
        else:
            reason = f"{code}: killed before its end" if code == "interrupted" else f"{code}: {message}"
        try:
            self._streams.execute(state.sandbox_id, cmd.LoseExecution(execution_id=execution_id, reason=reason), cause)
        except StoreError:
            return  # the lease ends it
        if isinstance(error, ProviderGone):
            self._effects.gone(state, cause, error)
        if unknown:
            raise ExecutionLost(
                f"The outcome of execution {execution_id} is unknown: {message}",
                execution_id=execution_id,
                sandbox_id=state.sandbox_id,
            ) from error
