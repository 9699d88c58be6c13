"""Kept code and output of runs: reading them, held against the log; erasing them, so that the log says who did.

Needs no provider. What was never kept, was erased or was changed is said for each body.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nexus.domain import commands as cmd
from nexus.domain import events as ev
from nexus.domain.bodies import BodyKind, SealedBody, Stock, erasure
from nexus.domain.errors import (
    ConcurrentModification,
    ConfigurationError,
    NexusError,
    NotFound,
    SandboxNotFound,
    StreamConflict,
    VerificationFailed,
)
from nexus.domain.policies import authorize
from nexus.domain.sandbox import stream_id
from nexus.domain.validation import is_execution_id, shown
from nexus.domain.values import Action, ErasureReason, Principal, SandboxState, system_principal
from nexus.engine.capture import Keeping, Keyring
from nexus.engine.refusals import Refusals
from nexus.engine.streams import RETRIES, Cause, Streams, owner_of
from nexus.projections.narrative import at
from nexus.projections.projector import Projector
from nexus.projections.queries import SandboxQueries

_BATCH: Final = 100
"""Runs whose bodies one append of a retention erases, at most."""


class PartState(StrEnum):
    """What can be said of one body."""

    VERIFIED = "verified"
    """It is what the log says: the digest in the event is the body's."""
    DIFFERS = "differs"
    """It opens, and is not what the log says."""
    DAMAGED = "damaged"
    """It was changed since it was stored, and does not open."""
    UNPROVEN = "unproven"
    """It opens, and the log has no digest to hold it against."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Part:
    """One body of a run. `data` is there unless it is missing or damaged; `detail` says what is wrong."""

    kind: BodyKind
    state: PartState
    data: bytes | None
    sha256: str | None
    """The log's digest of it, hexadecimal."""
    kept_at: datetime | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """What is kept of one run."""

    execution_id: str
    sandbox_id: str
    language: str
    truncated: bool
    """More was printed than was kept."""
    parts: Mapping[BodyKind, Part]

    @property
    def intact(self) -> bool:
        """Whether nothing that is there differs from what the log says."""
        return not {part.state for part in self.parts.values()} & {PartState.DIFFERS, PartState.DAMAGED}


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed; `position` is that of its event, None when there was nothing to erase."""

    sandbox_id: str
    executions: int
    position: int | None


class Bodies:
    """Questions to what is kept, and its end. Thread-safe."""

    def __init__(
        self, streams: Streams, queries: SandboxQueries, refusals: Refusals, keeping: Keeping, keyring: Keyring
    ) -> None:
        self._streams = streams
        self._refusals = refusals
        self._store = streams.store
        self._queries = queries
        self._keeping = keeping
        self._keyring = keyring

    def stock(self) -> Stock:
        """What is kept altogether, of every tenant: counts and sizes only."""
        return self._keeping.bodies.stock()

    # --- reading -------------------------------------------------------------------------------------------------
    def read(self, principal: Principal, execution_id: str) -> Body:
        """Code and output of a run, by its full id, each held against the digest in the log.

        For the sandbox's owner and the admins of the tenant; anybody else's answers as an unknown one (`NotFound`).
        Raises `ConfigurationError` when the master key is not the one that it was sealed under.
        """
        sandbox_id, tenant_id = self._authorized(principal, execution_id)
        told = _Told.of(self._store.load(stream_id(sandbox_id)), execution_id)
        stored = {body.kind: body for body in self._keeping.bodies.of(sandbox_id, execution_id, tenant_id)}
        parts = {kind: self._part(kind, stored.get(kind), told) for kind in BodyKind}
        return Body(execution_id, sandbox_id, told.language, told.truncated, parts)

    def _authorized(self, principal: Principal, execution_id: str) -> tuple[str, str]:
        unknown = NotFound(
            f"Execution {shown(execution_id)} not found",
            hint="`nexus sandbox logs SANDBOX -q` lists the ids of its runs.",
            execution_id=execution_id,
        )
        if not is_execution_id(execution_id):
            raise unknown
        try:
            # What belongs to others and what there is not are refused, recorded and answered alike.
            with self._refusals.of(principal, "read_body", execution_id):
                Projector(self._store).catch_up("executions")
                run = self._queries.execution(execution_id)
                if run is None:
                    raise SandboxNotFound(execution_id)
                state = self._streams.get(run.sandbox_id)
                authorize(principal, Action.READ_BODIES, owner_of(state), execution_id)
        except SandboxNotFound:
            raise unknown from None
        return state.sandbox_id, state.tenant_id

    def _part(self, kind: BodyKind, stored: SealedBody | None, told: _Told) -> Part:
        digest = told.digests.get(kind)
        if stored is None:
            return Part(kind, PartState.MISSING, None, digest, None, told.why_missing(kind))
        try:
            key = self._keeping.bodies.key(stored.sandbox_id, stored.tenant_id)
            if key is None or key.key_id != stored.key_id:
                return Part(kind, PartState.MISSING, None, digest, None, "its key is gone")
            about = self._keyring.about(stored.sandbox_id, stored.execution_id, kind)
            data = self._keyring.opened(key).open(stored.sealed, about)
        except VerificationFailed as error:
            return Part(kind, PartState.DAMAGED, None, digest, stored.kept_at, error.message)
        if digest is None:
            return Part(kind, PartState.UNPROVEN, data, None, stored.kept_at, "the log has no digest of it")
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            return Part(
                kind, PartState.DIFFERS, data, digest, stored.kept_at, f"its SHA-256 is {found}, the log says {digest}"
            )
        return Part(kind, PartState.VERIFIED, data, digest, stored.kept_at)

    # --- erasing -------------------------------------------------------------------------------------------------
    def erase(self, principal: Principal, reference: str) -> Erased:
        """Erase all kept code and output of a sandbox, whatever its state, and the key that opens them.

        The event that says so is in the same transaction. Erasing what is not there changes nothing. A run in
        progress loses its output, too; runs that begin later are captured again. Raises `SandboxNotFound`.
        """
        with self._refusals.of(principal, "erase", reference) as cause:
            view = self._queries.by_reference(reference, principal)
            authorize(principal, Action.ERASE_BODIES, owner_of(self._streams.get(view.sandbox_id)), reference)
        for attempt in range(RETRIES):
            state = self._streams.get(view.sandbox_id)
            stock = self._keeping.bodies.stock(view.sandbox_id)
            if stock.keys == 0 and stock.executions == 0:
                return Erased(view.sandbox_id, 0, None)
            command = cmd.EraseBodies(reason=ErasureReason.USER, executions=stock.executions)
            try:
                # At this very version: of two who erase at once, one records it and the other finds nothing left.
                recorded = self._streams.execute(
                    state.sandbox_id, command, cause, expected=state.version, rows=erasure(state.sandbox_id)
                )
            except StreamConflict:
                self._streams.back_off(attempt)
                continue
            self._keyring.forget(state.sandbox_id)
            self._keeping.bodies.scrub()
            return Erased(state.sandbox_id, stock.executions, recorded.envelopes[0].position)
        raise ConcurrentModification(sandbox_id=view.sandbox_id)

    def expire(self, problems: list[str] | None = None) -> list[str]:
        """Erase what has been kept for as long as the settings say; returns the sandboxes that it was of.

        What cannot be erased is told in `problems` and tried again the next time.
        """
        if self._keeping.days == 0:
            return []
        before = self._store.now() - timedelta(days=self._keeping.days)
        erased: dict[str, None] = {}
        while True:
            found, progress = self._keeping.bodies.kept_before(before, _BATCH), False
            for sandbox_id, executions in found.items():
                try:
                    self._expire(sandbox_id, executions, before)
                except NexusError as error:
                    if problems is not None:
                        problems.append(f"bodies of {sandbox_id}: {error.message}")
                    continue
                erased[sandbox_id], progress = None, True
            if not progress or sum(map(len, found.values())) < _BATCH:
                break
        if erased:
            self._keeping.bodies.scrub()
        return list(erased)

    def _expire(self, sandbox_id: str, executions: Sequence[str], before: datetime) -> None:
        state = self._streams.get(sandbox_id)
        last = state.state is SandboxState.STOPPED and self._keeping.bodies.stock(sandbox_id).executions == len(
            executions
        )
        self._streams.execute(
            sandbox_id,
            cmd.EraseBodies(reason=ErasureReason.RETENTION, executions=len(executions), kept_before=before),
            Cause.of(system_principal("retention", state.tenant_id), "retention"),
            rows=erasure(sandbox_id, None if last else executions),
        )


class _Told:
    """What the log tells of a run and of its sandbox's bodies."""

    def __init__(self) -> None:
        self.language = ""
        self.truncated = False
        self.captures = False
        self.digests: dict[BodyKind, str] = {}
        self.started: datetime | None = None
        self.outcome: ev.Event | None = None
        self.erased: ev.Envelope | None = None

    @classmethod
    def of(cls, envelopes: Iterable[ev.Envelope], execution_id: str) -> _Told:
        told = cls()
        for envelope in envelopes:
            event = envelope.event
            if isinstance(event, ev.SandboxRequested):
                told.captures = event.capture
            elif isinstance(event, ev.BodiesErased):
                early = event.kept_before is None or (told.started is not None and told.started < event.kept_before)
                if told.started is not None and told.erased is None and early:
                    told.erased = envelope
            elif getattr(event, "execution_id", None) != execution_id:
                continue
            elif isinstance(event, ev.ExecutionStarted):
                told.language, told.started = event.language, envelope.occurred_at
                told.digests[BodyKind.CODE] = event.code_sha256
            else:
                told.outcome = event
                if isinstance(event, ev.ExecutionFinished | ev.ExecutionTimedOut):
                    told.truncated = event.truncated
                    told.digests[BodyKind.STDOUT] = event.stdout_sha256
                    told.digests[BodyKind.STDERR] = event.stderr_sha256
        return told

    def why_missing(self, kind: BodyKind) -> str:
        if not self.captures:
            return "its sandbox does not capture"
        if self.erased is not None:
            who = f"by {self.erased.actor} at #{self.erased.position}, {at(self.erased.occurred_at)}"
            return f"it was erased {who}"
        if kind is not BodyKind.CODE and self.outcome is None:
            return "the run has not ended"
        if kind is not BodyKind.CODE and isinstance(self.outcome, ev.ExecutionLost):
            return "nobody knows how the run ended"
        return "it could not be captured when it ran"


def no_keeping() -> ConfigurationError:
    """For an engine that was made without a place to keep bodies in."""
    return ConfigurationError("This engine keeps neither code nor output", hint="Open it with `nexus.open_engine`.")
