"""Capturing code and output of runs: after the intent and after the outcome, never in their way.

What cannot be captured is said, in the run's notes and in the log of the program; the run itself goes on and counts.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from nexus.domain.bodies import BodyKey, BodyKind, BodyStore, SealedBody
from nexus.domain.errors import NexusError
from nexus.domain.ports import EventStore
from nexus.domain.provider import OUTPUT_CAP, ExecutionResult
from nexus.domain.sandbox import Sandbox

if TYPE_CHECKING:
    from nexus.adapters.cipher import DataKey, MasterKeys

_log = logging.getLogger("nexus.capture")

_KEYS_HELD: Final = 256
ERASED: Final = "what was captured in this sandbox was erased meanwhile"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How an installation keeps code and output."""

    bodies: BodyStore
    master: Callable[[bool], MasterKeys]
    """The master keys; True lets one be made where that may be. Raises `ConfigurationError` where there are none."""
    by_default: bool = False
    """Whether a sandbox captures that does not say."""
    days: int = 30
    """How long; 0: until they are erased."""


class Keyring:
    """The data keys of sandboxes, as far as the master keys open them. Thread-safe."""

    def __init__(self, store: EventStore, keeping: Keeping) -> None:
        self._installation = store.installation
        self._keeping = keeping
        self._lock = threading.Lock()
        self._held: OrderedDict[str, DataKey] = OrderedDict()

    def key(self, sandbox_id: str, tenant_id: str) -> DataKey:
        """The sandbox's present data key; made when it has none."""
        with self._lock:
            held = self._held.get(sandbox_id)
        if held is not None:
            return held
        stored = self._keeping.bodies.key(sandbox_id, tenant_id)
        if stored is None:
            master = self._keeping.master(True)
            key, wrapped = master.new(uuid4().hex, self._about(sandbox_id))
            mine = BodyKey(key.key_id, sandbox_id, tenant_id, master.name, wrapped)
            stored = self._keeping.bodies.add_key(mine)
            if stored.key_id != key.key_id:
                key = self.opened(stored)
        else:
            key = self.opened(stored)
        with self._lock:
            self._held[sandbox_id] = key
            while len(self._held) > _KEYS_HELD:
                self._held.popitem(last=False)
        return key

    def opened(self, stored: BodyKey) -> DataKey:
        """Raises `ConfigurationError` for another master key, `VerificationFailed` for what was changed."""
        master = self._keeping.master(False)
        return master.unwrap(stored.key_id, stored.wrapped_by, stored.wrapped, self._about(stored.sandbox_id))

    def forget(self, sandbox_id: str) -> None:
        with self._lock:
            self._held.pop(sandbox_id, None)

    def about(self, sandbox_id: str, execution_id: str, kind: BodyKind) -> tuple[str, ...]:
        """What a body's ciphertext is bound to."""
        return (*self._about(sandbox_id), execution_id, kind.value)

    def _about(self, sandbox_id: str) -> tuple[str, ...]:
        return (self._installation, sandbox_id)


class Capture:
    """Captures what runs in sandboxes that ask for it."""

    def __init__(self, store: EventStore, keeping: Keeping, keyring: Keyring) -> None:
        self._store = store
        self._keeping = keeping
        self._keyring = keyring

    def require(self) -> None:
        """Raises `ConfigurationError` where nothing could be sealed: better before a sandbox is made than after."""
        self._keeping.master(True)

    def begin(self, state: Sandbox, execution_id: str, code: bytes) -> Captured:
        """Keep the code of a run whose intent is recorded."""
        captured = Captured(self, state.sandbox_id, state.tenant_id, execution_id)
        captured.keep({BodyKind.CODE: code}, "code")
        return captured

    def seal(self, run: Captured, found: Mapping[BodyKind, bytes]) -> None:
        """Seal and store bodies of a run. Raises `NexusError`."""
        large = [kind for kind, data in found.items() if len(data) > OUTPUT_CAP]
        if large:
            raise NexusError(f"{large[0].value} has more than {OUTPUT_CAP} bytes")
        if not self._put(run, found):
            # Its key was erased, perhaps by another process. Code then goes under a new one; output goes nowhere, for
            # its run began before the erasure and is part of what was to go.
            self._keyring.forget(run.sandbox_id)
            if not self._put(run, found):
                raise NexusError(ERASED)

    def _put(self, run: Captured, found: Mapping[BodyKind, bytes]) -> bool:
        key = run.key or self._keyring.key(run.sandbox_id, run.tenant_id)
        kept_at = self._store.now()
        bodies = [
            SealedBody(
                key_id=key.key_id,
                sandbox_id=run.sandbox_id,
                execution_id=run.execution_id,
                kind=kind,
                tenant_id=run.tenant_id,
                kept_at=kept_at,
                sealed=key.seal(data, self._keyring.about(run.sandbox_id, run.execution_id, kind)),
            )
            for kind, data in found.items()
        ]
        if not self._keeping.bodies.put(bodies):
            return False
        run.key = key
        return True


class Captured:
    """The capture of one run. Its methods raise nothing that has to do with capturing."""

    def __init__(self, capture: Capture, sandbox_id: str, tenant_id: str, execution_id: str) -> None:
        self._capture = capture
        self.sandbox_id = sandbox_id
        self.tenant_id = tenant_id
        self.execution_id = execution_id
        self.key: DataKey | None = None
        """Under which its code was kept; its output goes under the same or nowhere."""
        self.notes: list[str] = []

    def output(self, result: ExecutionResult) -> None:
        """Keep the output of a run whose outcome is recorded."""
        self.keep({BodyKind.STDOUT: result.stdout, BodyKind.STDERR: result.stderr}, "output")

    def keep(self, found: Mapping[BodyKind, bytes], what: str) -> None:
        try:
            self._capture.seal(self, found)
        except NexusError as error:
            self._say(what, error.message)
        except Exception as error:  # noqa: BLE001 - a run must not fail for this; the type alone tells no secret
            self._say(what, type(error).__name__)

    def _say(self, what: str, why: str) -> None:
        note = f"Its {what} was not captured: {why}"
        self.notes.append(note)
        _log.warning("%s: %s", self.execution_id, note)
