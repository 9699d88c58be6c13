"""`FakeProvider`: the provider port over a `FakeCloud`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from nexus.domain.errors import (
    InvalidInput,
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import (
    Capabilities,
    ExecutionResult,
    Finding,
    Observed,
    OutputSink,
    Ref,
    RunRequest,
    SandboxSpec,
)
from nexus.testing.behaviour import Behaviour, FakeRun, Outcome, RunStopped, echo
from nexus.testing.calls import Calls, alive
from nexus.testing.cloud import FakeCloud
from nexus.testing.records import ExecutionRecord, FakeResource, Fault

_CHUNK: Final = 64 * 1024
_CANCEL_PATIENCE: Final = 10.0
"""Seconds of real time that `cancel` waits for a behaviour to notice."""


class FakeProvider(Calls):
    """A provider whose sandboxes are records in a `FakeCloud`, for tests of everything above the port.

    What it does: keeps every promise of the port about resources, refs, deadlines and errors; fails, loses answers,
    drifts and kills its own process as the cloud's faults say; remembers every call and every run.

    What it does not do: it isolates nothing and limits nothing. No code is executed: a run's outcome comes from
    `behaviour`, which by default echoes the code. Network, limits, template and env are recorded and have no effect.
    Only a `FakeRun.wait` (or `check`) inside the behaviour notices a time-out, a cancel or a vanished sandbox.
    By default it lets one execution id run twice, as most real engines do, so that a test can see that nobody asked
    for it (`FakeCloud.repeated`); `refuse_repeats=True` refuses.
    """

    def __init__(
        self,
        cloud: FakeCloud | None = None,
        *,
        name: str = "fake",
        capabilities: Capabilities | None = None,
        behaviour: Behaviour = echo,
        worker: str = "",
        step: Callable[[str], None] | None = None,
        refuse_repeats: bool = False,
    ) -> None:
        """`worker` names this instance in the records. `step` is called with `run:begin`, `run:effect`, `run:end` and
        so on for every call: before its effect, right after it, and before the answer is given.
        """
        self.cloud = cloud or FakeCloud()
        self.behaviour = behaviour
        self._name = name
        self._capabilities = capabilities or Capabilities(pause="memory")
        self._worker = worker or f"{name}-{os.getpid()}-{threading.get_ident()}"
        self._step = step or (lambda _step: None)
        self._refuse_repeats = refuse_repeats

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # --- lifecycle -------------------------------------------------------------------------------------------------
    def ensure(self, spec: SandboxSpec) -> Observed:
        with self._call("ensure", sandbox_id=spec.sandbox_id) as fault:
            return self._observed(self._make(spec, fault, home=None))

    def _make(self, spec: SandboxSpec, fault: Fault | None, home: FakeResource | None) -> FakeResource:
        with self.cloud.exclusively():
            mine = [
                r
                for r in self.cloud.resources()
                if (r.sandbox_id, r.installation, r.generation) == (spec.sandbox_id, spec.installation, spec.generation)
                and not r.snapshot
            ]
            whole = [r for r in mine if not r.half_made]
            for extra in [r for r in mine if r.half_made] + whole[1:]:
                self.cloud.remove(extra)
            if whole:
                return whole[0]
            made = FakeResource(
                id=self.cloud.new_id(),
                sandbox_id=spec.sandbox_id,
                installation=spec.installation,
                generation=spec.generation,
                condition="running",
                created_at=self.cloud.clock.now(),
                expires_at=self._deadline(spec.expires_at),
                half_made=fault is not None and fault.when == "half",
                name=spec.name,
                network=spec.network,
                template=spec.template.name,
                env={**spec.template.env, **spec.env},
                labels=dict(spec.labels),
            )
            self.cloud.put(made)
            if home is not None:
                self.cloud.files.copy(home.id, made.id)
            return made

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        with self._call("find", sandbox_id=sandbox_id):
            return [
                self._observed(r)
                for r in self.cloud.resources()
                if (r.sandbox_id, r.installation) == (sandbox_id, installation) and not r.half_made and self._listed(r)
            ]

    def inspect(self, ref: Ref) -> Observed:
        with self._call("inspect", ref):
            resource = self.cloud.get(self._id(ref))
            if resource is None:
                return Observed(ref=ref, sandbox_id=ref.data["sandbox_id"], condition="gone")
            return self._observed(resource)

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        with self._call("extend", ref), self.cloud.exclusively():
            self._push(self._there(ref), expires_at)

    def _push(self, resource: FakeResource, expires_at: datetime) -> None:
        if resource.expires_at is not None and expires_at > resource.expires_at:
            self.cloud.put(replace(resource, expires_at=expires_at))

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        with self._call("pause", ref) as fault:
            if self._capabilities.pause == "none":
                raise ProviderUnsupported(f"The {self._name} provider cannot pause")
            if self._capabilities.ref_survives_pause:
                with self.cloud.exclusively():
                    self.cloud.put(replace(self._there(ref), condition="paused"))
                self._changed(ref, "paused")
                save(ref)
                return ref
            return self._snapshot(ref, save, fault)

    def _snapshot(self, ref: Ref, save: Callable[[Ref], None], fault: Fault | None) -> Ref:
        with self.cloud.exclusively():
            source = self._there(ref)
            if source.snapshot:
                save(ref)
                return ref
            snapshot = replace(source, id=self.cloud.new_id(), snapshot=True, condition="paused", expires_at=None)
            self.cloud.put(snapshot)
            self.cloud.files.copy(source.id, snapshot.id)
        new = self._ref(snapshot)
        save(new)
        if fault is None or fault.when != "half":
            with self.cloud.exclusively():
                if still := self.cloud.get(source.id):
                    self.cloud.remove(still)
            self._changed(ref, "gone")
        return new

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        with self._call("resume", ref) as fault:
            with self.cloud.exclusively():
                resource = self._there(ref)
                if resource.snapshot:
                    return self._observed(self._make(spec, fault, home=resource))
                if resource.condition == "paused":
                    deadline = self._deadline(spec.expires_at)
                    resource = replace(resource, condition="running", expires_at=deadline)
                    self.cloud.put(resource)
            self._changed(ref, "running")
            return self._observed(resource)

    def destroy(self, ref: Ref) -> bool:
        with self._call("destroy", ref):
            with self.cloud.exclusively():
                resource = self.cloud.get(self._id(ref))
                if resource is not None:
                    self.cloud.remove(resource)
            self._changed(ref, "gone")
            return resource is not None

    def discard(self, sandbox_id: str, installation: str) -> int:
        with self._call("discard", sandbox_id=sandbox_id):
            with self.cloud.exclusively():
                doomed = [
                    r for r in self.cloud.resources() if (r.sandbox_id, r.installation) == (sandbox_id, installation)
                ]
                for resource in doomed:
                    self.cloud.remove(resource)
            for resource in doomed:
                self._changed(self._ref(resource), "gone")
            return len(doomed)

    def owned(self, installation: str) -> Iterator[Observed]:
        with self._call("owned"):
            return iter(
                [
                    self._observed(r)
                    for r in self.cloud.resources()
                    if r.installation == installation and r.sandbox_id and self._listed(r)
                ]
            )

    # --- runs ------------------------------------------------------------------------------------------------------
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        with self._call("run", ref, execution_id=request.execution_id):
            if (request.code is None) == (request.argv is None):
                raise ProviderInvalidRequest("Exactly one of code and argv is needed")
            if request.code is not None and request.language not in self._capabilities.languages:
                raise ProviderUnsupported(f"The {self._name} provider does not run {request.language}")
            if request.session is not None:
                raise ProviderUnsupported(f"The {self._name} provider keeps no sessions")
            execution, resource = self._begin(ref, request)
            run = FakeRun(self.cloud, resource, execution, request, on_output)
            try:
                outcome = self.behaviour(run)
                run.wait(outcome.seconds)
                run.emit("stdout", outcome.stdout)
                run.emit("stderr", outcome.stderr)
            except RunStopped as stop:
                ended = self._end(execution, stop.why)
                if stop.why == "lost":
                    raise ProviderOutcomeUnknown(f"{ref.data['sandbox_id']} went away under the run") from None
                outcome = Outcome(124) if stop.why == "timed out" else Outcome(137, signal=signal.SIGKILL)
                return self._result(run, ended, outcome, timed_out=stop.why == "timed out")
            except BaseException:
                self._end(execution, "interrupted")
                raise
            return self._result(run, self._end(execution, "finished"), outcome)

    def _begin(self, ref: Ref, request: RunRequest) -> tuple[ExecutionRecord, FakeResource]:
        with self.cloud.exclusively():
            resource = self._running(ref)
            before = self.cloud.executions(request.execution_id) if self._refuse_repeats else []
            if before:
                raise ProviderInvalidRequest(f"Execution {request.execution_id} has run already")
            if request.keep_until is not None:
                self._push(resource, request.keep_until)
            return self.cloud.begin_execution(resource, request.execution_id, self._worker), resource

    def _end(self, execution: ExecutionRecord, how: str) -> ExecutionRecord:
        ended = replace(execution, ended_at=self.cloud.clock.now(), end=how)
        with self.cloud.exclusively():
            self.cloud.change("execution", ended)
        return ended

    def _result(
        self, run: FakeRun, execution: ExecutionRecord, outcome: Outcome, *, timed_out: bool = False
    ) -> ExecutionResult:
        stdout, stderr, stdout_bytes, stderr_bytes = run.output
        assert execution.ended_at is not None
        return ExecutionResult(
            exit_code=outcome.exit_code,
            stdout=stdout,
            stderr=stderr,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
            duration=(execution.ended_at - execution.started_at).total_seconds(),
            timed_out=timed_out,
            signal=outcome.signal,
            oom_killed=outcome.oom_killed,
        )

    def cancel(self, ref: Ref, execution_id: str) -> None:
        with self._call("cancel", ref, execution_id=execution_id):
            with self.cloud.exclusively():
                self._there(ref)
                for execution in self._open(execution_id):
                    self.cloud.change("cancelled", execution.number)
            patience = threading.Event()
            for _ in range(int(_CANCEL_PATIENCE / 0.01)):
                if not self._open(execution_id):
                    return
                patience.wait(0.01)
            raise ProviderUnavailable("The run's behaviour does not look whether it was cancelled")

    def _open(self, execution_id: str) -> list[ExecutionRecord]:
        """Runs that have not ended; one whose process died ended with it."""
        return [e for e in self.cloud.executions(execution_id) if e.ended_at is None and alive(e.process)]

    # --- files -----------------------------------------------------------------------------------------------------
    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        with self._call("read_file", ref), self._file_errors(path):
            data = self.cloud.files.read(self._running(ref).id, path)
            if len(data) > limit:
                raise InvalidInput(f"{path} has {len(data)} bytes, more than the limit of {limit}")
            return iter([data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)])

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        with self._call("write_file", ref), self._file_errors(path):
            resource = self._running(ref)
            data = bytearray()
            for chunk in chunks:
                data += chunk
                if len(data) > limit:
                    raise InvalidInput(f"More than the limit of {limit} bytes for {path}")
            self.cloud.files.write(resource.id, path, bytes(data))
            return len(data)

    # --- the rest --------------------------------------------------------------------------------------------------
    def diagnose(self) -> Sequence[Finding]:
        return [Finding(check=self._name, ok=True, detail="a fake provider for tests: it isolates nothing")]

    def close(self) -> None:
        """Nothing to release: the cloud belongs to the test."""
