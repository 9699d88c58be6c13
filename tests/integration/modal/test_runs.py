"""Runs through bad connections and in great numbers: nothing is lost, doubled, stuck or left behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus.adapters.providers.modal import ModalProvider
from nexus.domain.errors import ProviderGone, ProviderInvalidRequest, ProviderOutcomeUnknown, ProviderUnavailable
from nexus.domain.provider import Observed, RunRequest, Stream
from tests.integration.modal.conftest import bash, new_spec
from tests.support.cloud.common import Fault
from tests.support.cloud.modal import ModalCloud

COUNTING = "for i in $(seq 200); do echo line $i; done; until [ -e go ]; do sleep 0.02; done; echo end"
COUNTED = b"".join(b"line %d\n" % i for i in range(1, 201)) + b"end\n"


def test_a_stream_that_is_cut_is_taken_up_where_it_was(cloud: ModalCloud, patient: ModalProvider) -> None:
    sandbox = patient.ensure(new_spec())
    cloud.plan.set(Fault.STREAM_CUT, times=2)
    heard = bytearray()

    def listen(stream: Stream, data: bytes) -> None:
        heard.extend(data)
        (cloud.record(sandbox.ref.data["modal_id"]).machine.home / "go").touch()

    result = patient.run(sandbox.ref, bash(COUNTING), listen)
    assert cloud.plan.hits.total() == 2
    assert (result.stdout, result.exit_code) == (COUNTED, 0)
    assert bytes(heard) == COUNTED


def test_a_stream_that_is_cut_for_good_leaves_the_outcome_unknown(
    cloud: ModalCloud, provider: ModalProvider, sandbox: Observed
) -> None:
    cloud.plan.set(Fault.STREAM_CUT_DEAD, times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, bash("echo up; sleep 60", timeout=2))
    assert cloud.plan.hits.total() == 1
    with pytest.raises(ProviderUnavailable):
        provider.inspect(sandbox.ref)  # out of reach, which is not gone


def test_a_sandbox_that_is_killed_under_its_run_leaves_the_outcome_unknown(
    cloud: ModalCloud, patient: ModalProvider, sandbox: Observed
) -> None:
    cloud.plan.set(Fault.KILLED, times=1)
    with pytest.raises(ProviderOutcomeUnknown, match="ended while the run"):
        patient.run(sandbox.ref, bash("echo up; sleep 60", timeout=60))
    assert patient.inspect(sandbox.ref).condition == "gone"
    with pytest.raises(ProviderGone):
        patient.run(sandbox.ref, bash("echo"))


def test_a_server_that_goes_away_under_a_run_leaves_the_outcome_unknown_and_the_sandbox_alive(
    cloud: ModalCloud, provider: ModalProvider, sandbox: Observed
) -> None:
    def stop(stream: Stream, data: bytes) -> None:
        cloud.stop()

    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, bash("echo up; sleep 60", timeout=2), stop)
    cloud.start()
    assert provider.inspect(sandbox.ref).condition == "running"


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
def test_a_lost_answer_to_a_start_runs_it_once(
    cloud: ModalCloud, provider: ModalProvider, sandbox: Observed, times: int | None
) -> None:
    cloud.plan.set(Fault.ANSWER_LOST, "TaskExecStart", times=times)
    try:
        assert provider.run(sandbox.ref, bash("echo -n x >> ran")).exit_code == 0
        assert times == 1
    except ProviderOutcomeUnknown:
        assert times is None
    cloud.plan.clear()
    assert provider.run(sandbox.ref, bash("cat ran 2>/dev/null")).stdout in (b"x", b"" if times is None else b"x")


def test_a_run_that_could_not_start_is_proven_never_to_have_begun(
    cloud: ModalCloud, provider: ModalProvider, sandbox: Observed
) -> None:
    request = bash("echo -n x >> ran")
    # The start is answered too late; the kill that follows gets through, and finds that nothing had begun.
    cloud.plan.set(Fault.SLOW, "TaskExecStart", times=1)
    with pytest.raises(ProviderUnavailable):
        provider.run(sandbox.ref, request)
    cloud.plan.clear()
    with pytest.raises(ProviderOutcomeUnknown, match="has begun before"):
        provider.run(sandbox.ref, request)  # nor will it ever
    assert provider.run(sandbox.ref, bash("cat ran 2>/dev/null")).stdout == b""


def test_a_cancel_that_comes_first_wins(patient: ModalProvider, sandbox: Observed) -> None:
    request = bash("echo -n x >> ran")
    patient.cancel(sandbox.ref, request.execution_id)
    with pytest.raises(ProviderOutcomeUnknown):
        patient.run(sandbox.ref, request)
    assert patient.run(sandbox.ref, bash("cat ran 2>/dev/null")).stdout == b""


def test_modals_own_time_out_is_one_too_and_ends_everything(
    cloud: ModalCloud, patient: ModalProvider, sandbox: Observed
) -> None:
    # Meant as a backstop, it now comes when ours does; and ours begins later, with the first answer that is not lost.
    cloud.router.clock_ahead = 15.0
    cloud.plan.set(Fault.ANSWER_LOST, "TaskExecStart", times=5)
    try:
        result = patient.run(sandbox.ref, bash("sleep 60 & echo up; sleep 60; true", timeout=1))
    finally:
        cloud.router.clock_ahead = 0.0
    assert (result.timed_out, result.exit_code, result.stdout) == (True, 124, b"up\n")
    assert not cloud.record(sandbox.ref.data["modal_id"]).machine.processes()


def test_code_that_does_not_arrive_whole_is_not_run(cloud: ModalCloud, provider: ModalProvider) -> None:
    sandbox = provider.ensure(new_spec())
    cloud.plan.set(Fault.INTERNAL, "TaskExecStdinWrite")
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, bash("echo -n x >> ran"))
    cloud.plan.clear()
    assert provider.run(sandbox.ref, bash("cat ran 2>/dev/null")).stdout == b""


def test_a_command_longer_than_modal_takes_is_refused(patient: ModalProvider, sandbox: Observed) -> None:
    with pytest.raises(ProviderInvalidRequest):
        patient.run(sandbox.ref, RunRequest("ex_long", timeout=5, argv=("echo", "x" * 70_000)))


def test_a_hundred_runs_at_width_sixteen(patient: ModalProvider) -> None:
    sandbox = patient.ensure(new_spec())
    with ThreadPoolExecutor(16) as pool:
        runs = [pool.submit(patient.run, sandbox.ref, bash(f"echo {n}; echo e{n} >&2; exit {n}")) for n in range(100)]
        results = [run.result(120) for run in runs]
    for n, result in enumerate(results):
        assert (result.stdout, result.stderr, result.exit_code) == (f"{n}\n".encode(), f"e{n}\n".encode(), n)


def test_two_hundred_runs_leave_nothing_behind(cloud: ModalCloud, open_provider: Callable[..., ModalProvider]) -> None:
    before = _connections(cloud)
    patient = open_provider(request_timeout=20.0)
    sandbox = patient.ensure(new_spec())
    for _ in range(5):
        patient.run(sandbox.ref, bash("true"))
    warm = _held(cloud)
    for _ in range(200):
        assert patient.run(sandbox.ref, bash("true")).exit_code == 0
    assert _held(cloud) == warm
    assert not cloud.record(sandbox.ref.data["modal_id"]).machine.processes()
    patient.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nexus-modal"]
    assert _connections(cloud) == before


def _held(cloud: ModalCloud) -> tuple[set[str], int, int]:
    """Threads, connections, and open files of this process."""
    return (
        {thread.name for thread in threading.enumerate()},
        cloud.connections(),
        len(list(Path("/proc/self/fd").iterdir())),
    )


def _connections(cloud: ModalCloud) -> int:
    deadline = time.monotonic() + 5
    while (count := cloud.connections()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def test_it_may_be_used_inside_a_running_event_loop(patient: ModalProvider, sandbox: Observed) -> None:
    # The SDK warns about blocking calls there, and a warning is an error here.
    async def main() -> bytes:
        return patient.run(sandbox.ref, bash("echo fine")).stdout

    assert asyncio.run(main()) == b"fine\n"


def test_a_fork_gets_a_connection_of_its_own(patient: ModalProvider, sandbox: Observed) -> None:
    assert patient.run(sandbox.ref, bash("echo parent")).stdout == b"parent\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons advise against what is tested here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            if patient.run(sandbox.ref, bash("echo child > file; echo child")).stdout == b"child\n":
                status = 0
            patient.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert patient.run(sandbox.ref, bash("cat file")).stdout == b"child\n"
