"""Each fault of the clouds against each operation of the real engine: which error it becomes, which events are written.

Whatever the fault, nothing that is not proven gone is said to be stopped, and no code runs twice; once the cloud is
well again, a fresh process makes resources and log the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from nexus.domain.values import SandboxState
from tests.integration.clouds.conftest import OpenWorld
from tests.integration.clouds.sides import FAULTS, MID_RUN, E2BSide, Side
from tests.integration.clouds.world import OPERATIONS, World
from tests.support.cloud.common import NO_SERVER, VANISHED, Fault
from tests.support.world import ANN

LOOKING = ("verify", "reconcile")
CHANGING = tuple(operation for operation in OPERATIONS if operation not in LOOKING)

# Operation, what the caller is told ("-": no error; "reported": it is in a sweep's or reconcile's report), the events
# that are written ("-": none), and below it the faults that lead to this. A fault hits the call of the cloud's API by
# which the operation takes effect.
E2B = """
create     -                       SandboxRequested SandboxStarted
    throttled-once
create     ProviderRateLimited     SandboxRequested SandboxFailed
    throttled
create     ProviderUnavailable     SandboxRequested SandboxFailed
    unavailable no-server
create     ProviderOutcomeUnknown  SandboxRequested SandboxFailed
    internal answer-lost slow
create     ProviderAuth            SandboxRequested SandboxFailed
    unauthenticated forbidden
run        ProviderRateLimited     ExecutionStarted ExecutionLost
    throttled-once throttled
run        ExecutionLost           ExecutionStarted ExecutionLost
    unavailable internal answer-lost slow stream-cut-dead killed
run        ProviderAuth            ExecutionStarted ExecutionLost
    unauthenticated forbidden
run        -                       ExecutionStarted ExecutionFinished
    stream-cut
run        ProviderUnavailable     ExecutionStarted ExecutionLost
    no-server
run        ProviderGone            ExecutionStarted ExecutionLost SandboxLost
    vanished
pause      -                       PauseRequested SandboxPaused
    throttled-once answer-lost
pause      ProviderRateLimited     PauseRequested PauseFailed
    throttled
pause      ProviderUnavailable     PauseRequested PauseFailed
    unavailable no-server
pause      ProviderOutcomeUnknown  PauseRequested PauseFailed
    internal slow
pause      ProviderAuth            PauseRequested PauseFailed
    unauthenticated forbidden
pause      ProviderGone            PauseRequested SandboxLost
    vanished
resume     -                       ResumeRequested SandboxResumed
    throttled-once answer-lost
resume     ProviderRateLimited     ResumeRequested ResumeFailed
    throttled
resume     ProviderUnavailable     ResumeRequested ResumeFailed
    unavailable no-server
resume     ProviderOutcomeUnknown  ResumeRequested
    internal slow
resume     ProviderAuth            ResumeRequested ResumeFailed
    unauthenticated forbidden
resume     ProviderGone            ResumeRequested SandboxLost
    vanished
extend     -                       SandboxExtended
    throttled-once throttled unavailable internal unauthenticated forbidden answer-lost slow no-server
extend     ProviderGone            SandboxExtended SandboxLost
    vanished
stop       -                       StopRequested SandboxStopped
    throttled-once answer-lost vanished
stop       ProviderRateLimited     StopRequested
    throttled
stop       ProviderUnavailable     StopRequested
    unavailable no-server
stop       ProviderOutcomeUnknown  StopRequested
    internal slow
stop       ProviderAuth            StopRequested
    unauthenticated forbidden
read_file  ProviderRateLimited     -
    throttled-once throttled
read_file  ProviderUnavailable     -
    unavailable internal answer-lost slow no-server
read_file  ProviderAuth            -
    unauthenticated forbidden
read_file  ProviderGone            -
    vanished
write_file ProviderRateLimited     -
    throttled-once throttled
write_file ProviderOutcomeUnknown  -
    unavailable internal answer-lost slow
write_file ProviderAuth            -
    unauthenticated forbidden
write_file ProviderUnavailable     -
    no-server
write_file ProviderGone            -
    vanished
expire     -                       StopRequested SandboxStopped
    throttled-once answer-lost vanished
expire     reported                StopRequested
    throttled unavailable internal unauthenticated forbidden slow no-server
verify     -                       -
    throttled-once
verify     ProviderRateLimited     -
    throttled
verify     ProviderUnavailable     -
    unavailable internal answer-lost slow no-server
verify     ProviderAuth            -
    unauthenticated forbidden
verify     -                       SandboxLost
    vanished
reconcile  -                       -
    throttled-once
reconcile  reported                -
    throttled unavailable internal unauthenticated forbidden answer-lost slow no-server
reconcile  -                       SandboxLost
    vanished
"""

MODAL = """
create     -                       SandboxRequested SandboxStarted
    throttled-once answer-lost
create     ProviderRateLimited     SandboxRequested SandboxFailed
    throttled
create     ProviderUnavailable     SandboxRequested SandboxFailed
    unavailable no-server
create     ProviderOutcomeUnknown  SandboxRequested SandboxFailed
    internal slow
create     ProviderAuth            SandboxRequested SandboxFailed
    unauthenticated forbidden
run        -                       ExecutionStarted ExecutionFinished
    throttled-once stream-cut
run        ProviderRateLimited     ExecutionStarted ExecutionLost
    throttled
run        ExecutionLost           ExecutionStarted ExecutionLost
    unavailable internal answer-lost slow stream-cut-dead killed no-server
run        ProviderAuth            ExecutionStarted ExecutionLost
    unauthenticated forbidden
run        ProviderGone            ExecutionStarted ExecutionLost SandboxLost
    vanished
pause      -                       PauseRequested SandboxPaused
    throttled-once
pause      ProviderRateLimited     PauseRequested PauseFailed
    throttled
pause      ProviderUnavailable     PauseRequested PauseFailed
    unavailable internal answer-lost slow no-server
pause      ProviderAuth            PauseRequested PauseFailed
    unauthenticated forbidden
pause      ProviderGone            PauseRequested SandboxLost
    vanished
resume     -                       ResumeRequested SandboxResumed
    throttled-once answer-lost
resume     ProviderRateLimited     ResumeRequested ResumeFailed
    throttled
resume     ProviderUnavailable     ResumeRequested ResumeFailed
    unavailable no-server
resume     ProviderOutcomeUnknown  ResumeRequested
    internal slow
resume     ProviderAuth            ResumeRequested ResumeFailed
    unauthenticated forbidden
resume     ProviderGone            ResumeRequested SandboxLost
    vanished
extend     -                       SandboxExtended
    throttled-once throttled unavailable internal unauthenticated forbidden answer-lost slow no-server
extend     ProviderGone            SandboxExtended SandboxLost
    vanished
stop       -                       StopRequested SandboxStopped
    throttled-once answer-lost vanished
stop       ProviderRateLimited     StopRequested
    throttled
stop       ProviderUnavailable     StopRequested
    unavailable
stop       ProviderOutcomeUnknown  StopRequested
    internal slow no-server
stop       ProviderAuth            StopRequested
    unauthenticated forbidden
read_file  -                       -
    throttled-once
read_file  ProviderRateLimited     -
    throttled
read_file  ProviderUnavailable     -
    unavailable internal answer-lost slow no-server
read_file  ProviderAuth            -
    unauthenticated forbidden
read_file  ProviderGone            -
    vanished
write_file -                       -
    throttled-once
write_file ProviderRateLimited     -
    throttled
write_file ProviderUnavailable     -
    unavailable internal answer-lost slow no-server
write_file ProviderAuth            -
    unauthenticated forbidden
write_file ProviderGone            -
    vanished
expire     -                       StopRequested SandboxStopped
    throttled-once answer-lost vanished
expire     reported                StopRequested
    throttled unavailable internal unauthenticated forbidden slow no-server
verify     -                       -
    throttled-once
verify     ProviderRateLimited     -
    throttled
verify     ProviderUnavailable     -
    unavailable internal answer-lost slow no-server
verify     ProviderAuth            -
    unauthenticated forbidden
verify     -                       SandboxLost
    vanished
reconcile  -                       -
    throttled-once
reconcile  reported                -
    throttled unavailable internal unauthenticated forbidden answer-lost slow no-server
reconcile  -                       SandboxLost
    vanished
"""


def parsed(table: str) -> dict[tuple[str, str], tuple[str, str]]:
    """By operation and fault: the error and the events."""
    cells: dict[tuple[str, str], tuple[str, str]] = {}
    for line in table.strip().splitlines():
        if not line.startswith(" "):
            operation, error, *events = line.split()
        else:
            for fault in line.split():
                assert (operation, fault) not in cells, "one line for each"
                cells[operation, fault] = error, " ".join(events)
    return cells


TABLES = {"e2b": parsed(E2B), "modal": parsed(MODAL)}
LASTING = [fault for fault in FAULTS if fault not in (*MID_RUN, VANISHED)]
CERTAIN = {"ProviderRateLimited", "ProviderUnavailable", "ProviderAuth", "ProviderGone"}
"""Errors that say that nothing happened."""


def told(cloud: str, fault: str, operations: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    return {operation: TABLES[cloud][operation, fault] for operation in operations}


@pytest.mark.parametrize("cloud", TABLES)
def test_the_table_is_complete(cloud: str) -> None:
    every = {(operation, fault) for operation in OPERATIONS for fault in FAULTS if fault not in MID_RUN}
    every -= {("create", VANISHED)}  # it is not there yet
    assert set(TABLES[cloud]) == every | {("run", fault) for fault in MID_RUN}


def phases(side: Side, fault: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Operations that can suffer side by side, and the calls that the fault hits meanwhile."""
    yield LOOKING, side.looking
    if fault == NO_SERVER:
        yield CHANGING, ()
    else:
        yield ("pause",), side.pausing
        yield tuple(operation for operation in CHANGING if operation != "pause"), side.changing


@pytest.mark.parametrize("cloud", TABLES)
@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_under_way(open_world: OpenWorld, cloud: str, fault: str) -> None:
    world = open_world(cloud, fault)
    before: dict[str, SandboxState] = {}
    for operations, calls in phases(world.side, fault):
        world.populate([operation for operation in operations if operation != "reconcile"])
        before |= world.states()
        world.side.strike(fault, calls)
        assert world.attempt(operations) == told(cloud, fault, operations)
        met = {call for call, kind in world.side.plan.hits if kind == fault}
        assert met >= set(calls) or fault == NO_SERVER
        world.side.heal()
    for operation, state in world.states().items():
        error, events = TABLES[cloud].get((operation, fault), ("-", ""))
        if error != "-" and operation != "create":
            assert state is before[operation], "no state follows from an outage"
        assert (state is SandboxState.STOPPED) is events.endswith(("SandboxStopped", "SandboxFailed"))

    world.recover()
    ran = world.well.run(ANN, "run", language="bash", code="cat ran 2>/dev/null || true").stdout
    assert ran in ("", "x"), "at most once"
    assert not ran or TABLES[cloud]["run", fault][0] not in CERTAIN, "what is said not to have run has not"
    assert world.states()["stop"] is world.states()["expire"] is SandboxState.STOPPED
    if isinstance(world.side, E2BSide):
        lasts = world.side.cloud.world.sandboxes[world.side.held_by(world.state("extend").ref or {})].end_at
        assert lasts >= (world.state("extend").expires_at or lasts + timedelta(1)), "E2B has been told"


@pytest.mark.parametrize("cloud", TABLES)
@pytest.mark.parametrize("fault", MID_RUN)
def test_a_stream_that_breaks(open_world: OpenWorld, cloud: str, fault: Fault) -> None:
    world = open_world(cloud, fault)
    world.populate(["run"])
    world.side.plan.set(fault, world.side.streaming, times=1)
    assert world.attempt(["run"]) == told(cloud, fault, ("run",))
    assert world.side.plan.hits[world.side.streaming, fault] == 1
    assert world.states()["run"] is SandboxState.ACTIVE
    world.side.heal()
    world.recover()
    if fault is Fault.KILLED:
        assert world.story("run")[-1] == "SandboxLost"
    else:
        assert world.well.run(ANN, "run", language="bash", code="cat ran").stdout == "x"


@pytest.mark.parametrize("cloud", TABLES)
def test_what_vanished(open_world: OpenWorld, cloud: str) -> None:
    world = open_world(cloud, VANISHED)
    operations = tuple(operation for operation in OPERATIONS if operation not in ("create", "reconcile"))
    world.populate(operations)
    vanish(world, operations)
    assert world.attempt(operations) == told(cloud, VANISHED, operations)
    world.recover()
    assert set(world.states().values()) == {SandboxState.STOPPED}
    world.populate(["reconcile"])
    vanish(world, ("reconcile",))
    assert world.attempt(["reconcile"]) == told(cloud, VANISHED, ("reconcile",))


def vanish(world: World, operations: tuple[str, ...]) -> None:
    for operation in operations:
        ref = world.state(operation).ref
        assert ref is not None
        world.side.vanish(ref)
