"""What every call of the fake provider has in common: it is noted, hit by faults, and checks the ref it is given."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from nexus.domain.errors import FileNotInSandbox, InvalidInput, ProviderGone, ProviderInvalidRequest, ProviderNotRunning
from nexus.domain.provider import Capabilities, Condition, Observed, Ref
from nexus.testing.behaviour import Behaviour
from nexus.testing.cloud import FakeCloud
from nexus.testing.records import CallRecord, FakeResource, Fault


class Calls:
    """The part of `FakeProvider` below its methods."""

    cloud: FakeCloud
    behaviour: Behaviour
    _name: str
    _capabilities: Capabilities
    _worker: str
    _step: Callable[[str], None]

    @contextmanager
    def _call(
        self, call: str, ref: Ref | None = None, *, sandbox_id: str = "", execution_id: str = ""
    ) -> Iterator[Fault | None]:
        record, fault = self.cloud.begin_call(
            CallRecord(
                number=0,
                call=call,
                worker=self._worker,
                process=os.getpid(),
                at=self.cloud.clock.now(),
                sandbox_id=ref.data.get("sandbox_id", "") if ref else sandbox_id,
                resource_id=ref.data.get("id", "") if ref else "",
                execution_id=execution_id,
            )
        )
        try:
            self._step(f"{call}:begin")
            if ref is not None:
                self._id(ref)
            if fault is not None:
                self.cloud.pass_time(fault.delay)
            self._strike(fault, early=True)
            yield fault
            self._step(f"{call}:effect")
            self._strike(fault, early=False)
        except BaseException as error:
            self._answer(record, type(error).__name__)
            raise
        self._answer(record, "ok")
        self._step(f"{call}:end")

    def _strike(self, fault: Fault | None, *, early: bool) -> None:
        if fault is None or (fault.when == "before") is not early:
            return
        if fault.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if (error := fault.exception()) is not None:
            raise error

    def _answer(self, record: CallRecord, answer: str) -> None:
        with self.cloud.exclusively():
            self.cloud.change("call", replace(record, answer=answer))

    # --- refs ------------------------------------------------------------------------------------------------------
    def _ref(self, resource: FakeResource) -> Ref:
        return Ref(provider=self._name, data={"id": resource.id, "sandbox_id": resource.sandbox_id})

    def _id(self, ref: Ref) -> str:
        if ref.provider != self._name or ref.version != 1 or not {"id", "sandbox_id"} <= set(ref.data):
            raise ProviderInvalidRequest(f"Not a ref of the {self._name} provider")
        return ref.data["id"]

    def _there(self, ref: Ref) -> FakeResource:
        resource = self.cloud.get(self._id(ref))
        if resource is None:
            raise ProviderGone(f"{ref.data['sandbox_id']} is gone")
        return resource

    def _running(self, ref: Ref) -> FakeResource:
        resource = self._there(ref)
        if resource.condition != "running":
            raise ProviderNotRunning(f"{resource.sandbox_id} is {resource.condition}")
        return resource

    def _observed(self, resource: FakeResource) -> Observed:
        return Observed(
            ref=self._ref(resource),
            sandbox_id=resource.sandbox_id,
            condition=resource.condition,
            generation=resource.generation,
            incarnation=resource.incarnation,
            created_at=resource.created_at,
            notes=("half-made",) if resource.half_made else (),
        )

    def _listed(self, resource: FakeResource) -> bool:
        return self._capabilities.lists_paused or resource.condition != "paused"

    def _deadline(self, expires_at: datetime) -> datetime | None:
        return expires_at if self._capabilities.native_ttl else None

    def _changed(self, ref: Ref, condition: Condition) -> None:
        """Tell a behaviour that runs real programs: it has `on_change(resource_id, condition)`."""
        if (hook := getattr(self.behaviour, "on_change", None)) is not None:
            hook(ref.data["id"], condition)

    @contextmanager
    def _file_errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotInSandbox(f"No file {path} in the sandbox", path=path) from None
        except (IsADirectoryError, NotADirectoryError, FileExistsError):
            raise InvalidInput(f"{path} is not a file, or lies below one", path=path) from None


def alive(process: int) -> bool:
    """Whether a process of this machine still exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
