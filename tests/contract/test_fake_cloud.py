"""The fake provider's own promises: shared worlds, scripted faults, drift, virtual time, and a memory of it all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from nexus.domain.errors import (
    ProviderAuth,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
)
from nexus.domain.provider import Capabilities, Ref, RunRequest, SandboxSpec, Template
from nexus.testing import FakeCloud, FakeProvider, FakeRun, Fault, Outcome, VirtualClock

# These tests fork on purpose; newer Pythons warn of that in a process with threads, such as one of pytest-xdist.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

SANDBOX = "sb_" + "1" * 32
INSTALLATION = "here"
MODAL_LIKE = Capabilities(pause="filesystem", ref_survives_pause=False, lists_paused=False)


def spec(cloud: FakeCloud, *, generation: int = 1, ttl: float = 600, sandbox_id: str = SANDBOX) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=sandbox_id,
        generation=generation,
        installation=INSTALLATION,
        name="a",
        template=Template(),
        expires_at=cloud.clock.now() + timedelta(seconds=ttl),
    )


def request(code: bytes = b"print(1)", *, execution_id: str = "ex_1", timeout: int = 10) -> RunRequest:
    return RunRequest(execution_id=execution_id, timeout=timeout, code=code)


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud(clock=VirtualClock())


@pytest.fixture
def provider(cloud: FakeCloud) -> FakeProvider:
    return FakeProvider(cloud, worker="w1")


def test_two_workers_see_one_world(cloud: FakeCloud, provider: FakeProvider) -> None:
    other = FakeProvider(cloud, worker="w2")
    assert provider.ensure(spec(cloud)) == other.ensure(spec(cloud))
    assert [(c.call, c.worker, c.answer) for c in cloud.calls()] == [("ensure", "w1", "ok"), ("ensure", "w2", "ok")]
    assert len(cloud.resources()) == 1


def test_the_default_run_echoes_and_executes_nothing(cloud: FakeCloud, provider: FakeProvider) -> None:
    ref = provider.ensure(spec(cloud)).ref
    result = provider.run(ref, request(b"rm -rf /"))
    assert (result.stdout, result.exit_code, result.timed_out) == (b"rm -rf /", 0, False)


@pytest.mark.parametrize(
    ("when", "left"), [("before", 0), ("after", 1)], ids=["request lost", "answer lost after the effect"]
)
def test_a_lost_answer_leaves_what_its_moment_says(
    cloud: FakeCloud, provider: FakeProvider, when: str, left: int
) -> None:
    cloud.lose_answer("ensure", when=when)  # type: ignore[arg-type]
    with pytest.raises(ProviderOutcomeUnknown):
        provider.ensure(spec(cloud))
    assert len(provider.find(SANDBOX, INSTALLATION)) == left
    provider.ensure(spec(cloud))
    assert len(cloud.resources()) == 1


def test_a_fault_strikes_as_often_as_told_where_told(cloud: FakeCloud, provider: FakeProvider) -> None:
    cloud.fail("find", "ProviderRateLimited", times=2, skip=1, facts={"retry_after": 3.0})
    cloud.fail("inspect", "ProviderAuth", times=None)
    cloud.fail("find", "ProviderUnavailable", worker="w2")
    assert provider.find(SANDBOX, INSTALLATION) == []
    for _ in range(2):
        with pytest.raises(ProviderRateLimited) as limited:
            provider.find(SANDBOX, INSTALLATION)
        assert limited.value.retry_after == 3.0
    assert provider.find(SANDBOX, INSTALLATION) == []
    with pytest.raises(ProviderUnavailable):
        FakeProvider(cloud, worker="w2").find(SANDBOX, INSTALLATION)
    ref = provider.ensure(spec(cloud)).ref
    for _ in range(3):
        with pytest.raises(ProviderAuth):
            provider.inspect(ref)
    cloud.heal()
    assert provider.inspect(ref).condition == "running"


def test_only_provider_errors_can_be_scripted(cloud: FakeCloud) -> None:
    with pytest.raises(TypeError, match="SandboxBusy"):
        cloud.fail("run", "SandboxBusy")


def test_a_half_made_resource_is_owned_and_discarded_but_not_found(cloud: FakeCloud, provider: FakeProvider) -> None:
    cloud.inject(Fault("ensure", "ProviderUnavailable", when="half"))
    with pytest.raises(ProviderUnavailable):
        provider.ensure(spec(cloud))
    assert provider.find(SANDBOX, INSTALLATION) == []
    assert [seen.notes for seen in provider.owned(INSTALLATION)] == [("half-made",)]
    whole = provider.ensure(spec(cloud))
    assert [r.id for r in cloud.resources()] == [whole.ref.data["id"]]
    cloud.plant(SANDBOX, INSTALLATION, half_made=True)
    assert provider.discard(SANDBOX, INSTALLATION) == 2
    assert cloud.resources() == []


def test_drift(cloud: FakeCloud, provider: FakeProvider) -> None:
    seen = provider.ensure(spec(cloud))
    cloud.pause_behind(SANDBOX)
    assert provider.inspect(seen.ref).condition == "paused"
    with pytest.raises(ProviderNotRunning):
        provider.run(seen.ref, request())
    cloud.restart(SANDBOX)
    assert provider.inspect(seen.ref).condition == "running"
    assert provider.inspect(seen.ref).incarnation != seen.incarnation
    assert cloud.vanish(SANDBOX) == 1
    assert provider.inspect(seen.ref).condition == "gone"
    with pytest.raises(ProviderGone):
        provider.run(seen.ref, request())
    assert cloud.executions() == []


def test_virtual_time_passes_without_waiting(cloud: FakeCloud) -> None:
    def slow(run: FakeRun) -> Outcome:
        run.emit("stdout", b"begun ")
        run.wait(3600)
        return Outcome(stdout=b"never")

    provider = FakeProvider(cloud, behaviour=slow)
    ref = provider.ensure(spec(cloud)).ref
    cloud.slow("run", 5, times=1)
    begin = cloud.clock.now()
    result = provider.run(ref, request(timeout=30))
    assert (result.timed_out, result.exit_code, result.stdout, result.duration) == (True, 124, b"begun ", 30)
    assert cloud.clock.now() - begin == timedelta(seconds=35)
    assert [e.end for e in cloud.executions()] == ["timed out"]


def test_an_outcome_may_take_its_time(cloud: FakeCloud) -> None:
    provider = FakeProvider(cloud, behaviour=lambda run: Outcome(exit_code=3, stderr=b"bad", seconds=7))
    ref = provider.ensure(spec(cloud)).ref
    result = provider.run(ref, request())
    assert (result.exit_code, result.stderr, result.duration) == (3, b"bad", 7)


def test_a_native_ttl_ends_what_is_not_extended() -> None:
    clock = VirtualClock()
    cloud = FakeCloud(clock=clock)
    provider = FakeProvider(cloud, capabilities=Capabilities(pause="memory", native_ttl=True))
    ref = provider.ensure(spec(cloud, ttl=60)).ref
    provider.extend(ref, clock.now() + timedelta(seconds=30))
    clock.advance(59)
    provider.run(ref, RunRequest("ex_1", 1, code=b"", keep_until=clock.now() + timedelta(seconds=60)))
    clock.advance(59)
    assert provider.inspect(ref).condition == "running"
    clock.advance(2)
    assert provider.inspect(ref).condition == "gone"


def test_a_pause_with_a_new_ref(cloud: FakeCloud) -> None:
    provider = FakeProvider(cloud, capabilities=MODAL_LIKE)
    old = provider.ensure(spec(cloud)).ref
    provider.write_file(old, "a.txt", [b"kept"], limit=10)
    saved: list[Ref] = []
    cloud.inject(Fault("pause", "ProviderOutcomeUnknown", when="half"))
    with pytest.raises(ProviderOutcomeUnknown):
        provider.pause(old, saved.append)
    assert provider.inspect(old).condition == "running"
    assert provider.inspect(saved[0]).condition == "paused"
    assert provider.destroy(saved[0])
    paused = provider.pause(old, saved.append)
    assert paused == saved[1] != old
    assert provider.inspect(old).condition == "gone"
    assert provider.find(SANDBOX, INSTALLATION) == []
    awake = provider.resume(spec(cloud, generation=2), paused)
    assert provider.resume(spec(cloud, generation=2), paused) == awake
    assert b"".join(provider.read_file(awake.ref, "a.txt", limit=10)) == b"kept"


def test_repeats_are_seen_and_on_demand_refused(cloud: FakeCloud, provider: FakeProvider) -> None:
    ref = provider.ensure(spec(cloud)).ref
    provider.run(ref, request())
    assert cloud.repeated() == []
    provider.run(ref, request())
    assert cloud.repeated() == ["ex_1"]
    strict = FakeProvider(cloud, refuse_repeats=True)
    with pytest.raises(ProviderInvalidRequest):
        strict.run(ref, request())
    assert len(cloud.executions()) == 2


def test_a_run_whose_sandbox_vanishes_has_an_unknown_outcome(cloud: FakeCloud) -> None:
    def unlucky(run: FakeRun) -> Outcome:
        cloud.vanish(SANDBOX)
        run.check()
        return Outcome()

    provider = FakeProvider(cloud, behaviour=unlucky)
    ref = provider.ensure(spec(cloud)).ref
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(ref, request())
    assert [e.end for e in cloud.executions()] == ["lost"]


def test_steps_are_announced_around_the_effect(cloud: FakeCloud) -> None:
    steps: list[tuple[str, int]] = []
    provider = FakeProvider(cloud, step=lambda step: steps.append((step, len(cloud.resources()))))
    provider.ensure(spec(cloud))
    assert steps == [("ensure:begin", 0), ("ensure:effect", 1), ("ensure:end", 1)]


def test_threads_that_sleep_on_a_stopped_clock_wake_when_it_is_advanced() -> None:
    clock = VirtualClock(auto=False)
    cloud = FakeCloud(clock=clock)
    begun = threading.Event()

    def wait(run: FakeRun) -> Outcome:
        begun.set()
        run.wait(60)
        return Outcome(stdout=b"woken")

    provider = FakeProvider(cloud, behaviour=wait)
    ref = provider.ensure(spec(cloud)).ref
    out: list[bytes] = []
    thread = threading.Thread(target=lambda: out.append(provider.run(ref, request(timeout=100)).stdout))
    thread.start()
    assert begun.wait(10)
    clock.advance(30)
    assert out == []
    clock.advance(31)
    thread.join(10)
    assert out == [b"woken"]


# --- several processes ---------------------------------------------------------------------------------------------
def _in_child(work: Callable[[], None]) -> int:
    """Exit status of a forked child, negative for a signal."""

    def quiet() -> None:
        work()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=quiet)
    child.start()
    child.join(30)
    assert child.exitcode is not None
    return child.exitcode


def test_processes_share_a_cloud_in_a_folder(tmp_path: Path) -> None:
    cloud = FakeCloud(tmp_path)
    provider = FakeProvider(cloud, worker="parent")
    assert _in_child(lambda: _make_one(tmp_path)) == 0
    seen = provider.find(SANDBOX, INSTALLATION)
    assert len(seen) == 1
    assert b"".join(provider.read_file(seen[0].ref, "note", limit=99)) == b"from the child"
    assert provider.ensure(spec(cloud)).ref == seen[0].ref
    assert provider.destroy(seen[0].ref)
    assert FakeCloud(tmp_path).resources() == []


def _make_one(path: Path) -> None:
    cloud = FakeCloud(path)
    provider = FakeProvider(cloud, worker="child")
    provider.write_file(provider.ensure(spec(cloud)).ref, "note", [b"from the child"], limit=99)


@pytest.mark.parametrize(("when", "left"), [("before", 0), ("half", 1), ("after", 1)])
def test_a_fault_can_kill_the_process_that_meets_it(tmp_path: Path, when: str, left: int) -> None:
    cloud = FakeCloud(tmp_path)
    cloud.inject(Fault("ensure", kill=True, when=when))  # type: ignore[arg-type]
    assert _in_child(lambda: _make_one(tmp_path)) == -signal.SIGKILL
    assert len(cloud.resources()) == left
    assert [(c.call, c.answer) for c in cloud.calls()] == [("ensure", None)]
    assert FakeProvider(cloud).ensure(spec(cloud)).condition == "running"


def test_a_forked_copy_of_the_cloud_has_a_lock_of_its_own(tmp_path: Path) -> None:
    cloud = FakeCloud(tmp_path)

    def work() -> None:
        provider = FakeProvider(cloud)
        for n in range(100):
            provider.ensure(spec(cloud, sandbox_id=f"sb_{os.getpid()}_{n}"))
        os._exit(0)

    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(cloud.resources()) == 300
    assert len({r.id for r in cloud.resources()}) == 300
    assert [c.number for c in cloud.calls()] == list(range(1, 301))


def test_a_torn_line_never_happened(tmp_path: Path) -> None:
    cloud = FakeCloud(tmp_path)
    FakeProvider(cloud).ensure(spec(cloud))
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'["resource",{"id":"fake-2","sand')
    again = FakeCloud(tmp_path)
    assert len(again.resources()) == len(cloud.resources()) == 1
    FakeProvider(again).ensure(spec(cloud, generation=2))
    assert len(cloud.resources()) == len(FakeCloud(tmp_path).resources()) == 2


def test_a_cancel_reaches_a_run_of_another_process(tmp_path: Path) -> None:
    cloud = FakeCloud(tmp_path)
    provider = FakeProvider(cloud)
    ref = provider.ensure(spec(cloud)).ref

    def work() -> None:
        def wait(run: FakeRun) -> Outcome:
            run.wait(60)
            return Outcome()

        result = FakeProvider(FakeCloud(tmp_path), behaviour=wait).run(ref, request(timeout=60))
        os._exit(0 if result.signal == signal.SIGKILL else 1)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    while not cloud.executions("ex_1"):
        assert child.is_alive()
    provider.cancel(ref, "ex_1")
    assert [e.end for e in cloud.executions()] == ["cancelled"]
    child.join(10)
    assert child.exitcode == 0
    provider.cancel(ref, "ex_unknown")


def test_a_cancel_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    cloud = FakeCloud(tmp_path)
    provider = FakeProvider(cloud)
    ref = provider.ensure(spec(cloud)).ref
    cloud.inject(Fault("run", kill=True, when="after"))

    def die(run: FakeRun) -> Outcome:
        os.kill(os.getpid(), signal.SIGKILL)
        return Outcome()

    killed = _in_child(lambda: _run_and_ignore(FakeProvider(FakeCloud(tmp_path), behaviour=die), ref))
    assert killed == -signal.SIGKILL
    provider.cancel(ref, "ex_1")
    assert [e.ended_at for e in cloud.executions()] == [None]


def _run_and_ignore(provider: FakeProvider, ref: Ref) -> None:
    provider.run(ref, request())
