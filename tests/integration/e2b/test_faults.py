"""Each fault of the loopback E2B against each operation of the adapter, and what it is called afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.errors import (
    ProviderAuth,
    ProviderError,
    ProviderGone,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
)
from nexus.domain.provider import Observed, Ref, SandboxSpec
from tests.integration.e2b.conftest import MakeRequest, MakeSpec, stop
from tests.support.cloud.common import Fault
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY


@dataclass
class World:
    """What an operation works on."""

    provider: E2BProvider
    spec: SandboxSpec
    make_request: MakeRequest
    seen: Observed | None = None

    @property
    def ref(self) -> Ref:
        assert self.seen is not None
        return self.seen.ref

    def run(self) -> bytes:
        return self.provider.run(self.ref, self.make_request(timeout=1)).stdout


@dataclass(frozen=True)
class Operation:
    """One method of the port, and the call of E2B that the fault hits."""

    method: str
    hits: str
    call: Callable[[World], object]
    changes: bool
    """Had the request arrived, something would be different: without an answer the outcome is unknown."""
    paused: bool = False
    """It works on a paused sandbox."""


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=2)


OPERATIONS = [
    Operation("ensure", "list", lambda w: w.provider.ensure(w.spec), changes=False),
    Operation("ensure", "create", lambda w: w.provider.ensure(w.spec), changes=True),
    Operation("ensure", "timeout", lambda w: w.provider.ensure(w.spec), changes=True),
    Operation("find", "list", lambda w: w.provider.find(w.spec.sandbox_id, "here"), changes=False),
    Operation("owned", "list", lambda w: list(w.provider.owned("here")), changes=False),
    Operation("inspect", "info", lambda w: w.provider.inspect(w.ref), changes=False),
    Operation("extend", "info", lambda w: w.provider.extend(w.ref, _soon()), changes=False),
    Operation("extend", "connect", lambda w: w.provider.extend(w.ref, _soon()), changes=True),
    Operation("pause", "pause", lambda w: w.provider.pause(w.ref, lambda _ref: None), changes=True),
    Operation("resume", "info", lambda w: w.provider.resume(w.spec, w.ref), changes=False, paused=True),
    Operation("resume", "connect", lambda w: w.provider.resume(w.spec, w.ref), changes=True, paused=True),
    Operation("destroy", "kill", lambda w: w.provider.destroy(w.ref), changes=True),
    Operation("discard", "list", lambda w: w.provider.discard(w.spec.sandbox_id, "here"), changes=False),
    Operation("discard", "kill", lambda w: w.provider.discard(w.spec.sandbox_id, "here"), changes=True),
    Operation("run", "start", World.run, changes=True),
    Operation("cancel", "start", lambda w: w.provider.cancel(w.ref, "ex_1"), changes=True),
    Operation("read_file", "read", lambda w: list(w.provider.read_file(w.ref, "f", limit=99)), changes=False),
    Operation("write_file", "write", lambda w: w.provider.write_file(w.ref, "f", [b"x"], limit=99), changes=True),
]
DATA_PLANE = {"start", "read", "write"}
"""Calls that the SDK itself never repeats."""

FOR_EVER: dict[Fault, tuple[type[ProviderError], type[ProviderError]]] = {
    # what is said of an operation that changes nothing, and of one that changes something
    Fault.THROTTLED: (ProviderRateLimited, ProviderRateLimited),
    Fault.UNAVAILABLE: (ProviderUnavailable, ProviderUnavailable),
    Fault.INTERNAL: (ProviderUnavailable, ProviderOutcomeUnknown),
    Fault.UNAUTHENTICATED: (ProviderAuth, ProviderAuth),
    Fault.FORBIDDEN: (ProviderAuth, ProviderAuth),
    Fault.ANSWER_LOST: (ProviderUnavailable, ProviderOutcomeUnknown),
    Fault.SLOW: (ProviderUnavailable, ProviderOutcomeUnknown),
}


def _named(operation: Operation) -> str:
    return f"{operation.method}@{operation.hits}"


OpenWorld = Callable[[], World]


@pytest.fixture
def open_world(provider: E2BProvider, make_spec: MakeSpec, make_request: MakeRequest) -> OpenWorld:
    return lambda: World(provider, make_spec(), make_request)


def _begin(world: World, operation: Operation) -> None:
    if operation.method != "ensure":
        world.seen = world.provider.ensure(world.spec)
        if operation.paused:
            world.provider.pause(world.ref, lambda _ref: None)
        else:
            world.provider.write_file(world.ref, "f", [b"there"], limit=99)


def _all_at_once(worlds: Mapping[str, World], operations: Iterable[Operation]) -> dict[str, ProviderError | None]:
    """What each operation ends in. They wait side by side, each in a world of its own."""

    def one(operation: Operation) -> ProviderError | None:
        try:
            operation.call(worlds[_named(operation)])
        except ProviderError as error:
            return error
        return None

    operations = list(operations)
    with ThreadPoolExecutor(len(operations)) as pool:
        return dict(zip(map(_named, operations), pool.map(one, operations), strict=True))


def _exactly(operation: Operation, fault: Fault) -> type[ProviderError]:
    expected = FOR_EVER[fault][operation.changes]
    if operation.hits == "start" and fault is Fault.UNAVAILABLE:
        # On the data plane 503 and 502 look alike, and behind a 502 the command may have been started.
        return ProviderOutcomeUnknown
    if operation.hits in {"read", "write"} and fault is Fault.UNAVAILABLE:
        return FOR_EVER[Fault.INTERNAL][operation.changes]
    return expected


@pytest.mark.parametrize("fault", FOR_EVER)
@pytest.mark.parametrize("hits", dict.fromkeys(operation.hits for operation in OPERATIONS))
def test_a_lasting_fault_is_named(cloud: E2BCloud, open_world: OpenWorld, hits: str, fault: Fault) -> None:
    operations = [operation for operation in OPERATIONS if operation.hits == hits]
    worlds = {_named(operation): open_world() for operation in operations}
    for operation in operations:
        world = worlds[_named(operation)]
        _begin(world, operation)
        if fault is Fault.SLOW:
            world.provider = E2BProvider(API_KEY, request_timeout=1.0, patience=0.5)
            if operation.hits in DATA_PLANE:
                assert world.run() == b"fine\n"  # it has a handle
    cloud.plan.set(fault, hits)
    ends = _all_at_once(worlds, operations)
    assert cloud.plan.hits[hits, fault] >= len(operations)
    assert {name: type(error) for name, error in ends.items()} == {
        _named(operation): _exactly(operation, fault) for operation in operations
    }
    for error in ends.values():
        assert error is not None
        assert error.retryable is not isinstance(error, ProviderAuth)
    # None of this is proof of anything: once the service is well, so is the sandbox.
    cloud.plan.clear()
    for operation in operations:
        world = worlds[_named(operation)]
        if world.seen is not None and operation.method not in {"destroy", "discard", "pause", "resume"}:
            assert world.provider.inspect(world.ref).condition == "running"


@pytest.mark.parametrize("operation", OPERATIONS, ids=_named)
def test_a_single_refusal_heals_or_is_named(cloud: E2BCloud, open_world: OpenWorld, operation: Operation) -> None:
    world = open_world()
    _begin(world, operation)
    cloud.plan.set(Fault.THROTTLED_ONCE, operation.hits)
    if operation.hits in DATA_PLANE:
        with pytest.raises(ProviderRateLimited):
            operation.call(world)
    else:
        operation.call(world)
    assert cloud.plan.hits[operation.hits, Fault.THROTTLED_ONCE] == 1
    operation.call(world)


def test_without_a_server_nothing_happens(cloud: E2BCloud, make_spec: MakeSpec, make_request: MakeRequest) -> None:
    # For three seconds the SDK tries to connect, which is longer than the impatient wait for it.
    provider = E2BProvider(API_KEY, patience=2.0)
    worlds = {_named(operation): World(provider, make_spec(), make_request) for operation in OPERATIONS}
    for operation in OPERATIONS:
        _begin(worlds[_named(operation)], operation)
    stop(cloud)
    ends = _all_at_once(worlds, OPERATIONS)
    assert {name: type(error) for name, error in ends.items()} == dict.fromkeys(worlds, ProviderUnavailable)
    cloud.start()
    for operation in OPERATIONS:
        world = worlds[_named(operation)]
        if world.seen is not None:
            assert provider.inspect(world.ref).condition == ("paused" if operation.paused else "running")
        else:
            assert provider.find(world.spec.sandbox_id, "here") == []


@pytest.mark.parametrize("operation", OPERATIONS, ids=_named)
def test_what_vanished_is_said_to_be_gone(cloud: E2BCloud, open_world: OpenWorld, operation: Operation) -> None:
    if operation.method == "ensure":
        return
    world = open_world()
    _begin(world, operation)
    cloud.vanish(world.ref.data["id"])
    answers = {"find": [], "owned": [], "destroy": False, "discard": 0, "cancel": None}
    if operation.method in answers:
        assert operation.call(world) == answers[operation.method]
    elif operation.method == "inspect":
        assert world.provider.inspect(world.ref).condition == "gone"
    else:
        with pytest.raises(ProviderGone):
            operation.call(world)


def test_every_fault_has_its_line() -> None:
    """A fault that is added to the loopback clouds must be decided about here."""
    elsewhere = {Fault.THROTTLED_ONCE, Fault.STREAM_CUT, Fault.STREAM_CUT_DEAD, Fault.KILLED}
    assert set(Fault) == set(FOR_EVER) | elsewhere
