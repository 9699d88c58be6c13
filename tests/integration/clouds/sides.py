"""The two clouds as the fault table sees them: what a fault hits, how patient the adapter is, and what exists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from nexus.adapters.providers.e2b import E2BProvider
from nexus.adapters.providers.modal import ModalProvider
from nexus.domain.provider import Provider
from tests.integration.e2b.conftest import stop as stop_e2b
from tests.support.cloud.common import NO_SERVER, VANISHED, Fault, FaultPlan
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY
from tests.support.cloud.modal import ModalCloud

FAULTS: Final = (*map(str, Fault), NO_SERVER, VANISHED)
MID_RUN: Final = (Fault.STREAM_CUT, Fault.STREAM_CUT_DEAD, Fault.KILLED)
"""Faults that only a run meets."""


class Side(ABC):
    """One loopback cloud, and how it is made ill."""

    changing: ClassVar[tuple[str, ...]]
    """The cloud's calls by which the operations take effect: what a fault hits, so that all before it has worked."""
    pausing: ClassVar[tuple[str, ...]]
    """The same for a pause."""
    looking: ClassVar[tuple[str, ...]]
    """The calls by which the reconcile looks."""
    streaming: ClassVar[str]
    """The call that carries a run's output."""
    plan: FaultPlan

    @abstractmethod
    def environment(self, fault: str) -> dict[str, str]: ...

    @abstractmethod
    def provider(self, fault: str = "") -> Provider:
        """One that waits no longer than it has to where this fault strikes."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def vanish(self, ref: dict[str, Any]) -> None: ...

    @abstractmethod
    def existing(self) -> set[str]:
        """Ids of everything that runs or is paused there."""

    @abstractmethod
    def clear(self) -> None: ...

    @abstractmethod
    def held_by(self, ref: dict[str, Any]) -> str:
        """The id in a recorded ref."""

    def strike(self, fault: str, calls: Iterable[str]) -> None:
        if fault == NO_SERVER:
            self.stop()
        else:
            for call in calls:
                self.plan.set(Fault(fault), call)

    def heal(self) -> None:
        """Well again, and whatever was held back has happened."""
        self.plan.clear()
        self.start()


class E2BSide(Side):
    changing = ("create", "start", "connect", "kill", "read", "write")
    pausing = ("pause",)
    looking = ("info", "list")
    streaming = "start"

    def __init__(self, cloud: E2BCloud) -> None:
        self.cloud = cloud
        self.plan = cloud.plan

    def environment(self, fault: str) -> dict[str, str]:
        return self.cloud.environment()

    def provider(self, fault: str = "") -> Provider:
        # Where nobody listens the SDK tries for three seconds to connect.
        patience = 2.0 if fault == NO_SERVER else 0.5
        return E2BProvider(API_KEY, request_timeout=1.0 if fault == Fault.SLOW else 20.0, patience=patience)

    def stop(self) -> None:
        stop_e2b(self.cloud)

    def start(self) -> None:
        if not self.cloud.serving:
            self.cloud.start()
        for sandbox in self.cloud.sandboxes():
            sandbox.unreachable = False
        self.cloud.wait_idle()

    def vanish(self, ref: dict[str, Any]) -> None:
        self.cloud.vanish(self.held_by(ref))

    def existing(self) -> set[str]:
        return {sandbox.id for sandbox in self.cloud.sandboxes()}

    def clear(self) -> None:
        self.cloud.restore()
        assert self.cloud.errors == []

    def held_by(self, ref: dict[str, Any]) -> str:
        return str(ref["data"]["id"])


class ModalSide(Side):
    changing = ("SandboxCreateV2", "TaskExecStart", "SandboxTerminateV2")
    pausing = ("TaskSnapshotFilesystem",)
    looking = ("SandboxWaitV2", "SandboxListV2")
    streaming = "TaskExecStdioRead"

    def __init__(self, cloud: ModalCloud) -> None:
        self.cloud = cloud
        self.plan = cloud.plan
        self.paused: set[str] = set()
        """Snapshots that a recorded ref names."""

    def environment(self, fault: str) -> dict[str, str]:
        # What throttles for ever need not be waited for.
        return {**self.cloud.environment(), "MODAL_MAX_THROTTLE_WAIT": "0" if fault == Fault.THROTTLED else "5"}

    def provider(self, fault: str = "") -> Provider:
        # An answer must not come too late for a deadline of ours: the SDK asks four times in a second.
        seconds = {"": 10.0, Fault.SLOW: 1.0, Fault.ANSWER_LOST: 3.0, NO_SERVER: 3.0}.get(fault, 1.5)
        return ModalProvider(
            request_timeout=seconds,
            create_timeout=2 * seconds,
            build_timeout=10.0,
            snapshot_timeout=max(1, round(seconds)),
        )

    def stop(self) -> None:
        self.cloud.stop()

    def start(self) -> None:
        self.cloud.start()
        for record in self.cloud.running():
            record.unreachable = False

    def vanish(self, ref: dict[str, Any]) -> None:
        if image := ref["data"].get("image_id"):
            self.cloud.forget_image(image)
        else:
            self.cloud.vanish(ref["data"]["modal_id"])

    def existing(self) -> set[str]:
        # A snapshot of nobody is in no list of Modal's; it ends by its own time to live.
        return {record.id for record in self.cloud.running()} | (self.paused & set(self.cloud.world.images))

    def clear(self) -> None:
        self.plan.hits.clear()
        self.cloud.clear()

    def held_by(self, ref: dict[str, Any]) -> str:
        if image := ref["data"].get("image_id"):
            self.paused.add(image)
        return str(image or ref["data"]["modal_id"])


SIDES: dict[str, Callable[[Any], Side]] = {"e2b": E2BSide, "modal": ModalSide}
