"""E2B's control plane in our terms: sandboxes by our ids, deadlines that never move back, handles to run through."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from nexus.adapters.providers.e2b.faults import translate, translated
from nexus.domain.errors import (
    NexusError,
    ProviderGone,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
)

if TYPE_CHECKING:
    from e2b import Sandbox, SandboxInfo

    from nexus.domain.provider import SandboxSpec

SANDBOX: Final = "nexus-sandbox"
INSTALLATION: Final = "nexus-installation"
GENERATION: Final = "nexus-generation"
NAME: Final = "nexus-name"
"""Metadata by which a sandbox is found again."""

LONGEST_TTL: Final = 86_400
"""Seconds that a sandbox may run at a stretch on E2B's Pro plan; an hour on Hobby (https://e2b.dev/docs/sandbox)."""

_BIRTH_TTL: Final = 60
"""Seconds that a new sandbox lives if nobody comes to set its deadline. A constant: the body of a repeated request must
be the same as before, or E2B refuses the repeated key."""

_HANDLES: Final = 256
"""Handles kept for sandboxes that were used last."""


class Control:
    """Thread-safe."""

    def __init__(self, **parameters: Any) -> None:
        """`parameters` are those of `e2b.E2B`."""
        self._parameters = parameters
        self._lock = threading.Lock()
        self._sdk: type[Sandbox] | None = None
        self._handles: OrderedDict[str, Sandbox] = OrderedDict()
        self._ends: OrderedDict[str, datetime] = OrderedDict()
        """Deadlines that were seen or set. They only ever move later, so a running sandbox lasts at least so long."""

    @property
    def sdk(self) -> type[Sandbox]:
        """The SDK's class with our key bound to it. The import takes half a second and 40 MiB, so it waits."""
        with self._lock:
            if self._sdk is None:
                from e2b import E2B

                self._sdk = E2B(**self._parameters).Sandbox
            return self._sdk

    # --- seeing ----------------------------------------------------------------------------------------------------
    def info(self, e2b_id: str) -> SandboxInfo:
        """What E2B says of it. Raises `ProviderGone` when E2B knows it no more."""
        sdk = self.sdk
        with translated("look at a sandbox", changes=False):
            info = sdk.get_info(e2b_id)
        self._lasts_until(e2b_id, info.end_at)
        return info

    def list(self, **metadata: str) -> list[SandboxInfo]:
        """Running and paused sandboxes that carry all this metadata, oldest first."""
        return sorted(self._pages(metadata), key=lambda info: (info.started_at, info.sandbox_id))

    def _pages(self, metadata: dict[str, str]) -> Iterator[SandboxInfo]:
        sdk = self.sdk
        from e2b import SandboxQuery

        with translated("list sandboxes", changes=False):
            pages = sdk.list(query=SandboxQuery(metadata=metadata), limit=100)
            while pages.has_next:
                yield from pages.next_items()

    # --- changing --------------------------------------------------------------------------------------------------
    def create(self, spec: SandboxSpec, template: str | None, attempt: int) -> str:
        """Make a sandbox and return its id. Repeated with the same `attempt`, E2B answers with the same sandbox."""
        sdk = self.sdk
        # Installations are told apart in the key too, which is E2B's and not ours to divide.
        owner = hashlib.sha256(spec.installation.encode()).hexdigest()[:16]
        key = f"nexus-{owner}-{spec.sandbox_id.lower().replace('_', '-')}-{spec.generation}-{attempt}"
        with translated("create a sandbox", changes=True):
            made = sdk.create(
                template=template,
                timeout=_BIRTH_TTL,
                metadata={
                    SANDBOX: spec.sandbox_id,
                    INSTALLATION: spec.installation,
                    GENERATION: str(spec.generation),
                    NAME: spec.name,
                },
                envs={**spec.template.env, **spec.env},
                allow_internet_access=spec.network == "full",
                lifecycle={"on_timeout": "kill"},
                idempotency_key=key,
            )
            self._keep(made)
            return made.sandbox_id

    def kill(self, e2b_id: str) -> bool:
        """False when it was not there."""
        sdk = self.sdk
        self.forget(e2b_id)
        with translated("end a sandbox", changes=True):
            return sdk.kill(e2b_id)

    def pause(self, e2b_id: str) -> None:
        sdk = self.sdk
        with translated("pause a sandbox", changes=True):
            newly = sdk.pause(e2b_id)
        if not newly and not is_paused(self.info(e2b_id)):
            # 409 stands for "already paused" and for "just now in transition".
            raise ProviderUnavailable("E2B: the sandbox is in transition; nothing was done")

    def resume(self, e2b_id: str, until: datetime) -> None:
        """Wake a paused sandbox, with this deadline."""
        self._connect(e2b_id, seconds_until(until))

    def set_deadline(self, e2b_id: str, until: datetime) -> None:
        """Set the deadline of a running sandbox, also to an earlier time."""
        sdk = self.sdk
        with translated("set a deadline", changes=True):
            sdk.set_timeout(e2b_id, seconds_until(until))
        self._lasts_until(e2b_id, until)

    def push(self, info: SandboxInfo, until: datetime) -> None:
        """Move the deadline of a running sandbox to `until` if that is later.

        By `connect`, which E2B promises never to shorten by, whoever else extends at the same moment; not by
        `set_timeout`, which would overwrite a later deadline that was set after `info` was read.
        """
        if info.end_at >= until or is_paused(info):
            return
        with self._lock:
            handle = self._handles.get(info.sandbox_id)
        if handle is None:
            self._connect(info.sandbox_id, seconds_until(until))
        else:
            with translated("extend a sandbox", changes=True):
                handle.connect(timeout=seconds_until(until))
        self._lasts_until(info.sandbox_id, until)

    @contextmanager
    def pushing(self, e2b_id: str, until: datetime) -> Iterator[None]:
        """Push the deadline beside what is done meanwhile: a round trip or two that nobody has to wait for.

        A push that fails spoils nothing: the deadline is then not known here any more, and the next run, which would
        not start without, tells the reason.
        """

        def push() -> None:
            try:
                self.push(self.info(e2b_id), until)
            except NexusError:
                with self._lock:
                    self._ends.pop(e2b_id, None)

        beside = threading.Thread(target=push, name="nexus-e2b-push", daemon=True)
        beside.start()
        yield
        beside.join()

    # --- handles ---------------------------------------------------------------------------------------------------
    def handle(self, e2b_id: str, *, keep_until: datetime | None = None) -> Sandbox:
        """What commands are run through, its deadline pushed to `keep_until`. Raises for what is gone or paused.

        What it is wanted for has not begun: whatever goes wrong here, that has had no effect.
        """
        if keep_until is None and (handle := self._cached(e2b_id)) is not None:
            return handle
        try:
            return self._ready(e2b_id, keep_until)
        except ProviderOutcomeUnknown as error:
            raise ProviderUnavailable(error.message) from error

    def _ready(self, e2b_id: str, keep_until: datetime | None) -> Sandbox:
        info = self.info(e2b_id)
        if is_paused(info):
            raise ProviderNotRunning("E2B: the sandbox is paused")
        if keep_until is not None:
            self.push(info, keep_until)
        # Left alone, E2B's `connect` would give a running sandbox 300 s more.
        return self._cached(e2b_id) or self._connect(e2b_id, 1)

    def lasts(self, e2b_id: str, until: datetime) -> bool:
        """Whether it can be run through at once: there is a handle, and its deadline is known to be so late."""
        with self._lock:
            end = self._ends.get(e2b_id)
            return end is not None and e2b_id in self._handles and end >= until

    def _cached(self, e2b_id: str) -> Sandbox | None:
        with self._lock:
            handle = self._handles.get(e2b_id)
            if handle is not None:
                self._handles.move_to_end(e2b_id)
            return handle

    def forget(self, e2b_id: str) -> bool:
        """Drop a handle whose token may be out of date; False when there was none."""
        with self._lock:
            self._ends.pop(e2b_id, None)
            return self._handles.pop(e2b_id, None) is not None

    def why_silent(self, e2b_id: str) -> ProviderGone | ProviderNotRunning | None:
        """For a sandbox that answers nothing: proof that it is gone or paused, or None when it should be running.

        Raises what the control plane raises: an outage proves nothing.
        """
        try:
            info = self.info(e2b_id)
        except ProviderGone as gone:
            return gone
        return ProviderNotRunning("E2B: the sandbox is paused") if is_paused(info) else None

    def _connect(self, e2b_id: str, seconds: int) -> Sandbox:
        sdk = self.sdk
        try:
            handle = sdk.connect(e2b_id, timeout=seconds)
        except Exception as error:
            raise translate(error, "connect to a sandbox", changes=True) from error
        self._keep(handle)
        return handle

    def _keep(self, handle: Sandbox) -> None:
        with self._lock:
            self._handles[handle.sandbox_id] = handle
            self._handles.move_to_end(handle.sandbox_id)
            while len(self._handles) > _HANDLES:
                self._handles.popitem(last=False)

    def _lasts_until(self, e2b_id: str, moment: datetime) -> None:
        with self._lock:
            self._ends[e2b_id] = max(moment, self._ends.pop(e2b_id, moment))
            while len(self._ends) > _HANDLES:
                self._ends.popitem(last=False)

    def close(self) -> None:
        """Forget the handles. The SDK's connections belong to the process; they are few, and end when idle."""
        with self._lock:
            self._handles.clear()
            self._ends.clear()


def is_paused(info: SandboxInfo) -> bool:
    return str(info.state.value) == "paused"


def seconds_until(moment: datetime) -> int:
    """Whole seconds as E2B takes them, rounded up, at least one, at most what it allows."""
    left = (moment - datetime.now(UTC)).total_seconds()
    return max(1, min(LONGEST_TTL, math.ceil(left)))
