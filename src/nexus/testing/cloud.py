"""The fake cloud: what several fake providers, in one process or in many, see as the outside world."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from nexus.testing.clock import CloudClock, SystemClock
from nexus.testing.files import FileStore, FolderFiles, MemoryFiles
from nexus.testing.journal import FileJournal, Journal, MemoryJournal
from nexus.testing.records import ArmedFault, CallRecord, Change, ExecutionRecord, FakeResource, Fault, When


class FakeCloud:
    """Resources, faults to come, and a memory of everything that was asked.

    Hand one object to several `FakeProvider`s of a process, or give `path`, a folder, and every process that opens a
    FakeCloud on it sees the same world, also after any of them was killed. Thread-safe.
    """

    def __init__(self, path: Path | str | None = None, *, clock: CloudClock | None = None) -> None:
        self.clock: CloudClock = clock or SystemClock()
        self.files: FileStore
        self._forget()
        self._journal: Journal
        if path is None:
            self.files, self._journal = MemoryFiles(), MemoryJournal(self._apply)
        else:
            folder = Path(path)
            self.files = FolderFiles(folder / "homes")
            self._journal = FileJournal(folder / "journal.jsonl", self._apply, self._forget)

    # --- what a test sets ------------------------------------------------------------------------------------------
    def inject(self, fault: Fault) -> None:
        """Arm a fault. Several may wait; of those that fit a call, the oldest strikes."""
        fault.exception()
        with self.exclusively():
            self.change("fault", ArmedFault(number=len(self._faults) + 1, fault=fault))

    def fail(self, call: str, error: str, *, times: int | None = 1, **more: Any) -> None:
        """The call raises this `Provider…` error before anything happens."""
        self.inject(Fault(call, error, times=times, **more))

    def lose_answer(self, call: str, *, times: int | None = 1, when: When = "after", **more: Any) -> None:
        """The call takes effect (or, `when="before"`, does not) and the caller cannot know which."""
        self.inject(Fault(call, "ProviderOutcomeUnknown", when=when, times=times, **more))

    def slow(self, call: str, seconds: float, *, times: int | None = None, **more: Any) -> None:
        """The call takes this much longer."""
        self.inject(Fault(call, delay=seconds, times=times, **more))

    def heal(self) -> None:
        """Forget all faults."""
        with self.exclusively():
            self.change("healed", "")

    # --- drift: what happens behind our back -----------------------------------------------------------------------
    def vanish(self, sandbox_id: str) -> int:
        """Remove everything of a sandbox; returns how many resources that were."""
        with self.exclusively():
            doomed = [r for r in self.resources() if r.sandbox_id == sandbox_id]
            for resource in doomed:
                self.remove(resource)
            return len(doomed)

    def pause_behind(self, sandbox_id: str) -> None:
        """Somebody paused it by hand."""
        self._drift(sandbox_id, condition="paused")

    def resume_behind(self, sandbox_id: str) -> None:
        """Somebody resumed it by hand."""
        self._drift(sandbox_id, condition="running")

    def restart(self, sandbox_id: str) -> None:
        """Somebody restarted it by hand: files survive, processes do not, the incarnation changes."""
        with self.exclusively():
            for resource in self.resources():
                if resource.sandbox_id == sandbox_id:
                    incarnation = str(int(resource.incarnation) + 1)
                    self.put(replace(resource, incarnation=incarnation, condition="running"))

    def plant(self, sandbox_id: str, installation: str, **more: Any) -> FakeResource:
        """A resource that no provider of this test made: an orphan, a stranger's, or (`half_made=True`) a wreck."""
        with self.exclusively():
            resource = FakeResource(
                id=self.new_id(),
                sandbox_id=sandbox_id,
                installation=installation,
                **{"generation": 1, "condition": "running", "created_at": self.clock.now(), **more},
            )
            self.put(resource)
            return resource

    def _drift(self, sandbox_id: str, **what: Any) -> None:
        with self.exclusively():
            for resource in self.resources():
                if resource.sandbox_id == sandbox_id:
                    self.put(replace(resource, **what))

    # --- what a test asks ------------------------------------------------------------------------------------------
    def resources(self) -> list[FakeResource]:
        """Everything that exists now, oldest first, snapshots and half-made ones included."""
        with self.exclusively():
            present = [r for r in list(self._resources.values()) if self._not_expired(r)]
            return sorted(present, key=lambda r: (r.created_at, len(r.id), r.id))

    def calls(self, call: str | None = None) -> list[CallRecord]:
        """Every call of the port, in order of arrival."""
        with self.exclusively():
            return [c for c in self._calls.values() if call in {None, c.call}]

    def executions(self, execution_id: str | None = None) -> list[ExecutionRecord]:
        """Every run that began, in order."""
        with self.exclusively():
            return [e for e in self._executions.values() if execution_id in {None, e.execution_id}]

    def repeated(self) -> list[str]:
        """Execution ids that ran more than once: must be empty."""
        times = Counter(e.execution_id for e in self.executions())
        return sorted(execution_id for execution_id, n in times.items() if n > 1)

    # --- what the provider does ------------------------------------------------------------------------------------
    def exclusively(self) -> AbstractContextManager[None]:
        """One step of the world: what is read and changed inside is one atomic act, for every process."""
        return self._journal.exclusively()

    def change(self, kind: str, value: Any) -> None:
        self._journal.append((kind, value))

    def get(self, resource_id: str) -> FakeResource | None:
        with self.exclusively():
            resource = self._resources.get(resource_id)
            return resource if resource and self._not_expired(resource) else None

    def _not_expired(self, resource: FakeResource) -> bool:
        over = resource.expires_at is not None and resource.expires_at <= self.clock.now()
        if over and resource.condition == "running":
            self.remove(resource)
            return False
        return True

    def put(self, resource: FakeResource) -> None:
        self.change("resource", resource)

    def remove(self, resource: FakeResource) -> None:
        self.change("removed", resource.id)
        self.files.drop(resource.id)

    def new_id(self) -> str:
        return f"fake-{self._made + 1}"

    def pass_time(self, seconds: float) -> None:
        """Wait on the cloud's clock."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while (left := (until - self.clock.now()).total_seconds()) > 0:
            self.clock.sleep(min(left, self.clock.slice))

    def begin_execution(self, resource: FakeResource, execution_id: str, worker: str) -> ExecutionRecord:
        with self.exclusively():
            execution = ExecutionRecord(
                number=len(self._executions) + 1,
                execution_id=execution_id,
                sandbox_id=resource.sandbox_id,
                resource_id=resource.id,
                worker=worker,
                process=os.getpid(),
                started_at=self.clock.now(),
            )
            self.change("execution", execution)
            return execution

    def cancelled(self, number: int) -> bool:
        with self.exclusively():
            return number in self._cancelled

    def begin_call(self, record: CallRecord) -> tuple[CallRecord, Fault | None]:
        """Note the call, and find out what is to go wrong with it."""
        with self.exclusively():
            record = replace(record, number=len(self._calls) + 1, at=self.clock.now(), process=os.getpid())
            self.change("call", record)
            return record, self._strike(record)

    def _strike(self, record: CallRecord) -> Fault | None:
        for armed in list(self._faults.values()):
            fault = armed.fault
            fits = (
                not armed.spent
                and fault.call in {"*", record.call}
                and fault.sandbox_id in {None, record.sandbox_id}
                and fault.worker in {None, record.worker}
            )
            if fits:
                self.change("fault", replace(armed, met=armed.met + 1))
                if armed.met >= fault.skip:
                    return fault
        return None

    # --- state -----------------------------------------------------------------------------------------------------
    def _forget(self) -> None:
        self._resources: dict[str, FakeResource] = {}
        self._made = 0
        self._faults: dict[int, ArmedFault] = {}
        self._calls: dict[int, CallRecord] = {}
        self._executions: dict[int, ExecutionRecord] = {}
        self._cancelled: set[int] = set()

    def _apply(self, change: Change) -> None:
        match change:
            case ("resource", FakeResource() as resource):
                self._made += resource.id not in self._resources
                self._resources[resource.id] = resource
            case ("removed", str(resource_id)):
                self._resources.pop(resource_id, None)
            case ("call", CallRecord() as call):
                self._calls[call.number] = call
            case ("execution", ExecutionRecord() as execution):
                self._executions[execution.number] = execution
            case ("fault", ArmedFault() as armed):
                self._faults[armed.number] = armed
            case ("healed", _):
                self._faults = {}
            case ("cancelled", int(number)):
                self._cancelled.add(number)
            case _:
                raise ValueError(f"not a change: {change!r}")
