"""Beginning a sandbox: its name, its idempotency key and its intent, in one append."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from nexus.domain import commands as cmd
from nexus.domain import ids
from nexus.domain.decisions import decide
from nexus.domain.errors import ConcurrentModification, NameTaken, StreamConflict
from nexus.domain.events import Envelope, KeyClaimed, NameClaimed
from nexus.domain.names import fingerprint, key_stream, name_stream, same_request
from nexus.domain.policies import Limits, operation_deadline
from nexus.domain.pool import Member
from nexus.domain.ports import Liveness, RowWrite
from nexus.domain.sandbox import Sandbox
from nexus.domain.values import Operation, SandboxState
from nexus.engine.pool import Pool
from nexus.engine.recovery import Recovery
from nexus.engine.streams import RETRIES, Cause, Steps, Streams


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request for a sandbox."""

    name: str
    user_id: str
    tenant_id: str
    agent_id: str | None
    provider: str
    template_id: str | None
    ttl_seconds: int
    max_age_seconds: int
    network: str
    limits: Mapping[str, int | float | None]
    labels: Mapping[str, str]
    env: Mapping[str, str]
    capture: bool
    notes: tuple[str, ...] = ()
    """What its owner should know that no provider would say."""

    def fingerprint(self) -> str:
        """What makes two requests the same. Environment values count by their digest only."""
        facts: dict[str, Any] = asdict(self)
        facts.pop("notes")
        facts["env"] = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in self.env.items()}
        return fingerprint(facts)


@dataclass(frozen=True, slots=True)
class Begun:
    """A sandbox, and the cause to go on with when this very call began it (None: somebody else did)."""

    state: Sandbox
    cause: Cause | None = None
    member: Member | None = None
    """The member of the warm pool that becomes this sandbox's resource."""


class Creation:
    """Claims the name and the key and records the intent, or finds the sandbox that the key stands for."""

    def __init__(
        self, streams: Streams, recovery: Recovery, pool: Pool, liveness: Liveness, limits: Limits, steps: Steps
    ) -> None:
        self._streams = streams
        self._recovery = recovery
        self._pool = pool
        self._liveness = liveness
        self._limits = limits
        self._step = steps

    def begin(self, wanted: Wanted, key: str | None, cause: Cause) -> Begun:
        """Begin the sandbox, or find the one that the key stands for."""
        for attempt in range(RETRIES):
            try:
                return self._try(wanted, key, cause)
            except StreamConflict:
                self._streams.back_off(attempt)
        raise ConcurrentModification(name=wanted.name)

    def _try(self, wanted: Wanted, key: str | None, cause: Cause) -> Begun:
        store = self._streams.store
        beside: list[Envelope] = []
        now = store.now()
        sandbox_id = ids.sandbox_id(uuid4())
        if key is not None:
            stream = key_stream(wanted.tenant_id, wanted.user_id, key)
            print_ = wanted.fingerprint()
            claimed = store.last(stream)
            if claimed is not None and isinstance(claimed.event, KeyClaimed):
                return Begun(self._streams.get(same_request(claimed.event, print_, key)))
            claim = KeyClaimed(sandbox_id=sandbox_id, fingerprint=print_)
            beside.append(self._streams.envelope(stream, 1, claim, cause, now))
        stream = name_stream(wanted.tenant_id, wanted.user_id, wanted.name)
        last = store.last(stream)
        if last is not None and isinstance(last.event, NameClaimed):
            self._require_stopped(last.event.sandbox_id, wanted)
        version = last.originator_version + 1 if last is not None else 1
        named = NameClaimed(name=wanted.name, sandbox_id=sandbox_id)
        beside.append(self._streams.envelope(stream, version, named, cause, now))
        rows: list[RowWrite] = []
        member = self._pool.pick(wanted.provider, wanted.template_id, wanted.limits, wanted.network)
        if member is not None:
            taking, rows = self._pool.members.taking(member, sandbox_id, cause, now)
            beside.append(taking)
        events = decide(self._command(sandbox_id, wanted), None, now)
        recorded = self._streams.begin(sandbox_id, events, beside, cause, now, rows)
        self._step("create.intent")
        return Begun(recorded.state, cause.after(recorded.envelopes[-1]), member)

    def _require_stopped(self, holder_id: str, wanted: Wanted) -> None:
        """A claim stands until its sandbox is stopped; one whose time is up is stopped here."""
        holder = self._recovery.settle(self._streams.get(holder_id))
        if holder.state is not SandboxState.STOPPED:
            taken = NameTaken(name=wanted.name, user_id=wanted.user_id)
            taken.details["sandbox_id"] = holder_id
            raise taken

    def _command(self, sandbox_id: str, wanted: Wanted) -> cmd.RequestSandbox:
        facts = {name: getattr(wanted, name) for name in wanted.__dataclass_fields__ if name not in ("env", "notes")}
        deadline = operation_deadline(self._limits, Operation.CREATE, self._streams.store.now())
        return cmd.RequestSandbox(
            sandbox_id=sandbox_id,
            env_names=tuple(sorted(wanted.env)),
            deadline=deadline,
            holder=self._liveness.me,
            **facts,
        )
