"""The outside world of a simulation: a store and a provider that are exact and fail on the seed's demand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nexus.adapters.stores import sql
from nexus.domain import errors
from nexus.domain.encoding import decode, encode
from nexus.domain.errors import StoreUnavailable, StreamConflict
from nexus.domain.events import Envelope, Fact
from nexus.domain.ports import RowsWrite, RowWrite, Snapshot, Table
from nexus.domain.provider import (
    Capabilities,
    ExecutionResult,
    Finding,
    Limits,
    NetworkPolicy,
    Observed,
    OutputSink,
    Ref,
    RunRequest,
    SandboxSpec,
    Template,
)
from nexus.domain.warm_pool import Kind, MemberSpec, Pooled
from tests.simulation.scheduler import Scheduler

START = datetime(2026, 1, 1, tzinfo=UTC)
OURS, STRANGERS = "ours", "strangers"


@dataclass
class Faults:
    """How likely each fault is at each chance for it. All zero: the weather is fine."""

    store_down: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    slowness: float = 1.0
    """Above 10, a provider may take longer than an operation's deadline."""

    def clear(self) -> None:
        self.store_down = self.refused = self.lost = 0.0
        self.slowness = 1.0


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


class SimViews:
    """Read models in one in-memory database per process of the test run, emptied for each schedule."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.row_factory = _as_dict
        self._tables: list[str] = []
        self._positions: dict[str, int] = {}

    def reset(self) -> None:
        for name in self._tables:
            self._db.execute(f"DELETE FROM {sql.identifier(name)}")
        self._positions.clear()

    def create(self, tables: Sequence[Table]) -> None:
        for table in tables:
            if table.name not in self._tables:
                self._db.execute(sql.create_table(table))
                self._tables.append(table.name)

    def query(self, statement: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        return self._db.execute(statement, params or {}).fetchall()

    def write(self, rows: Sequence[RowWrite | RowsWrite]) -> None:
        for statement, parameters in sql.writes(rows):
            self._db.executemany(statement, parameters)

    def position(self, projection: str) -> int | None:
        return self._positions.get(projection)

    def advance(
        self,
        projection: str,
        expected: int | None,
        position: int,
        rows: Sequence[RowWrite | RowsWrite],
        *,
        durable: bool = True,
    ) -> bool:
        if self._positions.get(projection) != expected:
            return False
        self._positions[projection] = position
        self.write(rows)
        return True

    def begin(self, *_given: Any, **_more: Any) -> Any:
        raise AssertionError("no schedule rebuilds")

    def fill(self, *_given: Any) -> bool:
        raise AssertionError("no schedule rebuilds")

    def complete(self, tables: Sequence[Table]) -> None:
        raise AssertionError("no schedule rebuilds")

    def swap(self, renames: Mapping[str, str], **_more: Any) -> int | None:
        raise AssertionError("no schedule rebuilds")

    def drop(self, tables: Sequence[str], forget: Sequence[str]) -> None:
        raise AssertionError("no schedule rebuilds")


class SimStore:
    """An event store in memory. Appends are atomic; a fault strikes before anything is stored.

    Neither real store can stand here: who waits for a lock or a connection of theirs waits outside of the schedule,
    and a seed would no longer be one order of events. That both keep what this one does is for the store contract; what
    only real processes can do to them: kill -9, crashes and outages in `tests/faults` and `tests/integration`.
    """

    installation = OURS

    def __init__(self, scheduler: Scheduler, faults: Faults, views: SimViews) -> None:
        self._scheduler = scheduler
        self._faults = faults
        self.views = views
        self.log: list[Envelope] = []
        self.streams: dict[str, list[Envelope]] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.jump = timedelta()

    def now(self) -> datetime:
        return START + timedelta(seconds=self._scheduler.now) + self.jump

    def append(
        self, envelopes: Sequence[Envelope], *, rows: Sequence[RowWrite] = (), snapshots: Sequence[Snapshot] = ()
    ) -> list[Envelope]:
        self._scheduler.pause()
        self._weather()
        heads = {name: len(self.streams.get(name, ())) for name in {e.originator_id for e in envelopes}}
        for envelope in envelopes:
            if envelope.originator_version != heads[envelope.originator_id] + 1:
                raise StreamConflict(stream=envelope.originator_id)
            heads[envelope.originator_id] += 1
        placed = []
        for envelope in envelopes:
            event = decode(envelope.topic, envelope.schema_version, encode(envelope.event))
            stored = replace(envelope, event=event, position=len(self.log) + 1, recorded_at=self.now())
            self.log.append(stored)
            self.streams.setdefault(envelope.originator_id, []).append(stored)
            placed.append(stored)
        self.views.write(rows)
        for snapshot in snapshots:
            self.snapshots[snapshot.originator_id] = snapshot
        self._scheduler.pause()
        return placed

    def load(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[Envelope]:
        self._weather()
        self._scheduler.pause()
        return self.streams.get(stream, [])[after:upto]

    def history(self, stream: str, *, after: int = 0, upto: int | None = None) -> Iterator[Fact]:
        for envelope in self.load(stream, after=after, upto=upto):
            yield Fact(envelope.event, envelope.occurred_at, envelope.originator_version)

    def last(self, stream: str) -> Envelope | None:
        found = self.load(stream)
        return found[-1] if found else None

    def snapshot(self, stream: str) -> Snapshot | None:
        return self.snapshots.get(stream)

    def read(
        self, after: int, limit: int = 1000, *, upto: int | None = None, topics: Sequence[str] = ()
    ) -> list[Envelope]:
        return [envelope for envelope in self.log[after:upto] if not topics or envelope.topic in topics][:limit]

    def raw(
        self, after: int, limit: int = 1000, *, upto: int | None = None, columns: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        raise AssertionError("no schedule seals")

    def pages(self, size: int, *, columns: Sequence[str] = ()) -> Any:
        raise AssertionError("no schedule rebuilds")

    def head(self) -> int:
        return len(self.log)

    def wait(self, after: int, timeout: float) -> bool:
        return self.head() > after

    def close(self) -> None:
        pass

    def _weather(self) -> None:
        if self._scheduler.random.random() < self._faults.store_down:
            raise StoreUnavailable


@dataclass
class Resource:
    id: str
    sandbox_id: str
    installation: str
    generation: int
    condition: str
    incarnation: int = 1
    expires_at: datetime | None = None
    snapshot: bool = False
    member_id: str = ""
    """Of the warm pool, as whose member it was made; without a `sandbox_id` it still is one."""


class SimProvider:
    """A provider whose resources are values. `watch` is told of each effect at the moment it happens."""

    name = "sim"

    def __init__(
        self,
        scheduler: Scheduler,
        faults: Faults,
        store: SimStore,
        resources: dict[str, Resource],
        executions: list[str],
        watch: Callable[[str, str, str], None],
        *,
        survives: bool,
    ) -> None:
        self._scheduler = scheduler
        self._faults = faults
        self._store = store
        self._resources = resources
        self._executions = executions
        self._watch = watch
        self.capabilities = Capabilities(
            pause="memory" if survives else "filesystem", ref_survives_pause=survives, lists_paused=survives
        )

    # --- chances ------------------------------------------------------------------------------------------------
    def _before(self) -> None:
        self._scheduler.pause()
        chance = self._scheduler.random
        if chance.random() < self._faults.refused:
            kinds = (errors.ProviderUnavailable, errors.ProviderAuth, errors.ProviderRateLimited)
            raise chance.choice(kinds)("refused by the seed")

    def _after(self) -> None:
        if self._scheduler.random.random() < self._faults.lost:
            raise errors.ProviderOutcomeUnknown("answer lost by the seed")
        self._scheduler.pause()

    def _slow(self, most: float) -> None:
        self._scheduler.sleep(self._scheduler.random.random() * most * self._faults.slowness)

    def _ref(self, resource: Resource) -> Ref:
        return Ref(self.name, {"id": resource.id, "sandbox_id": resource.sandbox_id})

    def _seen(self, resource: Resource) -> Observed:
        condition: Any = resource.condition
        return Observed(
            ref=self._ref(resource),
            sandbox_id=resource.sandbox_id,
            condition=condition,
            generation=resource.generation,
            incarnation=str(resource.incarnation),
        )

    def _there(self, ref: Ref) -> Resource:
        resource = self._resources.get(ref.data["id"])
        if resource is None:
            raise errors.ProviderGone("gone")
        return resource

    def _make(self, spec: SandboxSpec, *, kind: str) -> Resource:
        for resource in self._resources.values():
            if (resource.sandbox_id, resource.generation, resource.snapshot) == (
                spec.sandbox_id,
                spec.generation,
                False,
            ):
                return resource
        made = Resource(f"r{len(self._executions)}-{len(self._resources)}-{self._scheduler.switches}",
                        spec.sandbox_id, spec.installation, spec.generation, "running")  # fmt: skip
        self._resources[made.id] = made
        self._watch(kind, spec.sandbox_id, made.id)
        return made

    def _remove(self, resource: Resource, kind: str) -> None:
        self._watch(kind, resource.sandbox_id, resource.id)
        self._resources.pop(resource.id, None)

    # --- the port -----------------------------------------------------------------------------------------------
    def ensure(self, spec: SandboxSpec) -> Observed:
        self._before()
        self._slow(5)
        made = self._make(spec, kind="ensure")
        self._slow(5)
        self._after()
        return self._seen(made)

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        self._before()
        found = [
            self._seen(r)
            for r in self._resources.values()
            if r.sandbox_id == sandbox_id and r.installation == installation and not r.snapshot
        ]
        self._scheduler.pause()
        return found

    def inspect(self, ref: Ref) -> Observed:
        self._before()
        resource = self._resources.get(ref.data["id"])
        seen = (
            Observed(ref=ref, sandbox_id=ref.data["sandbox_id"], condition="gone")
            if resource is None
            else self._seen(resource)
        )
        self._scheduler.pause()
        return seen

    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        self._before()
        resource = self._there(ref)
        if resource.condition != "running":
            raise errors.ProviderNotRunning("not running")
        self._executions.append(request.execution_id)
        self._watch("run", resource.sandbox_id, request.execution_id)
        seconds = self._scheduler.random.random() * request.timeout * 1.3
        self._scheduler.sleep(min(seconds, request.timeout))
        if resource.id not in self._resources:
            raise errors.ProviderOutcomeUnknown("it went away under the run")
        self._after()
        timed_out = seconds > request.timeout
        return ExecutionResult(124 if timed_out else 0, b"out", b"", 3, 0, min(seconds, request.timeout), timed_out)

    def cancel(self, ref: Ref, execution_id: str) -> None:
        self._before()
        self._there(ref)

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        self._before()
        self._there(ref)

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        self._before()
        self._there(ref)
        self._slow(2)
        resource = self._there(ref)
        if self.capabilities.ref_survives_pause or resource.snapshot:
            resource.condition = "paused"
            self._watch("pause", resource.sandbox_id, resource.id)
            self._after()
            save(ref)
            return ref
        shot = replace(resource, id=f"{resource.id}s", condition="paused", snapshot=True)
        self._resources[shot.id] = shot
        self._slow(2)
        save(self._ref(shot))
        self._scheduler.pause()
        if resource.id in self._resources:
            self._remove(resource, "pause")
        self._after()
        return self._ref(shot)

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        self._before()
        resource = self._there(ref)
        if resource.snapshot:
            made = self._make(spec, kind="resume")
            self._after()
            return self._seen(made)
        self._slow(2)
        resource.condition = "running"
        self._watch("resume", resource.sandbox_id, resource.id)
        self._after()
        return self._seen(resource)

    def destroy(self, ref: Ref) -> bool:
        self._before()
        self._slow(1)
        resource = self._resources.get(ref.data["id"])
        if resource is not None:
            self._remove(resource, "destroy")
        self._after()
        return resource is not None

    def discard(self, sandbox_id: str, installation: str) -> int:
        self._before()
        doomed = [r for r in self._resources.values() if (r.sandbox_id, r.installation) == (sandbox_id, installation)]
        for resource in doomed:
            self._remove(resource, "discard")
        self._after()
        return len(doomed)

    def owned(self, installation: str) -> Iterator[Observed]:
        self._before()
        self._slow(10)
        mine = [
            self._seen(r)
            for r in self._resources.values()
            if r.installation == installation and r.sandbox_id and (not r.snapshot or self.capabilities.lists_paused)
        ]
        self._scheduler.pause()
        return iter(mine)

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        raise AssertionError("no schedule reads files")

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        raise AssertionError("no schedule writes files")

    def diagnose(self) -> Sequence[Finding]:
        return []

    def close(self) -> None:
        pass


class SimPool(SimProvider):
    """The same with a warm pool."""

    def kind(self, template: Template, limits: Limits, network: NetworkPolicy) -> Kind | None:
        self._before()
        return Kind("here", "same")

    def prepare(self, spec: MemberSpec) -> Ref:
        self._before()
        self._slow(5)
        for resource in self._members(spec.member_id):
            return self._ref(resource)
        made = Resource(f"p{len(self._resources)}-{self._scheduler.switches}", "", spec.installation, 1, "running",
                        member_id=spec.member_id)  # fmt: skip
        self._resources[made.id] = made
        self._watch("prepare", spec.member_id, made.id)
        self._slow(5)
        self._after()
        return self._ref(made)

    def adopt(self, spec: SandboxSpec, ref: Ref) -> Observed:
        self._before()
        self._slow(5)
        resource = self._there(ref)
        if resource.condition != "running":
            raise errors.ProviderNotRunning("not running")
        if resource.sandbox_id not in ("", spec.sandbox_id):
            raise errors.ProviderGone("it became another sandbox")
        resource.sandbox_id, resource.generation = spec.sandbox_id, spec.generation
        self._watch("ensure", spec.sandbox_id, resource.id)
        self._after()
        return self._seen(resource)

    def pooled(self, installation: str) -> Sequence[Pooled]:
        self._before()
        found = [Pooled(r.member_id, r.condition) for r in self._members() if r.installation == installation]  # type: ignore[arg-type]
        self._scheduler.pause()
        return found

    def withdraw(self, member_id: str, installation: str) -> bool:
        self._before()
        doomed = self._members(member_id)
        for resource in doomed:
            self._watch("withdraw", member_id, resource.id)
            self._resources.pop(resource.id, None)
        self._after()
        return bool(doomed)

    def _members(self, member_id: str = "") -> list[Resource]:
        return [
            r for r in self._resources.values() if r.member_id and not r.sandbox_id and member_id in ("", r.member_id)
        ]
