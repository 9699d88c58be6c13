"""What others do to our containers is seen as it is, and nothing is concluded from what cannot be seen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from nexus.adapters.providers.docker import DockerProvider, containers
from nexus.domain.errors import (
    ProviderError,
    ProviderGone,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
)
from nexus.domain.provider import Limits, RunRequest
from nexus.testing.provider_contract.base import Listener
from tests.integration.docker.conftest import PATIENCE, Lab
from tests.support.dockerd_fixtures import Doorway
from tests.support.waiting import until


@pytest.fixture(params=["lab", "remote_lab", "bare_lab"])
def any_lab(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_a_container_removed_by_hand_is_gone(any_lab: Lab) -> None:
    seen = any_lab.sandbox()
    assert any_lab.run(seen.ref, "echo here").stdout == b"here\n"
    any_lab.engine.remove_container(seen.ref.data["container"], force=True)
    assert any_lab.provider.inspect(seen.ref).condition == "gone"
    with pytest.raises(ProviderGone):
        any_lab.run(seen.ref, "echo here")
    assert any_lab.provider.find(seen.sandbox_id, any_lab.installation) == []
    assert any_lab.provider.destroy(seen.ref) is False


def test_a_run_in_a_container_removed_by_hand_has_an_unknown_outcome(any_lab: Lab) -> None:
    seen = any_lab.sandbox()
    listener = Listener()
    with ThreadPoolExecutor() as pool:
        run = pool.submit(any_lab.run, seen.ref, "echo up; sleep 60", timeout=60, on_output=listener)
        assert listener.came.wait(PATIENCE)
        any_lab.engine.remove_container(seen.ref.data["container"], force=True)
        with pytest.raises(ProviderOutcomeUnknown):
            run.result(PATIENCE)


def test_a_container_stopped_by_hand_is_gone_and_can_be_cleared(any_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "RESTART_PATIENCE", 0.1)  # nobody restarts it: each look would be waited for
    seen = any_lab.sandbox()
    any_lab.engine.kill(seen.ref.data["container"])
    until(lambda: any_lab.container(seen)["State"]["Status"] == "exited", "it ended")
    now = any_lab.provider.inspect(seen.ref)
    assert now.condition == "gone"
    assert "137" in now.notes[0]
    with pytest.raises(ProviderGone):
        any_lab.run(seen.ref, "echo here")
    assert any_lab.provider.find(seen.sandbox_id, any_lab.installation) == []
    assert [each.ref for each in any_lab.provider.owned(any_lab.installation)] == [seen.ref], "the sweep must find it"
    assert any_lab.provider.destroy(seen.ref) is True


def test_ensure_replaces_a_container_that_ended(any_lab: Lab) -> None:
    spec = any_lab.spec()
    seen = any_lab.provider.ensure(spec)
    any_lab.engine.kill(seen.ref.data["container"])
    until(lambda: any_lab.container(seen)["State"]["Status"] == "exited", "it ended")
    again = any_lab.provider.ensure(spec)
    assert again.ref != seen.ref
    assert any_lab.run(again.ref, "echo new").stdout == b"new\n"


def test_a_container_paused_by_hand_is_paused(any_lab: Lab) -> None:
    seen = any_lab.sandbox()
    any_lab.run(seen.ref, "echo kept > file")
    any_lab.engine.pause(seen.ref.data["container"])
    assert any_lab.provider.inspect(seen.ref).condition == "paused"
    with pytest.raises(ProviderNotRunning):
        any_lab.run(seen.ref, "echo here")
    assert any_lab.container(seen)["State"]["Paused"], "a refused run wakes nobody"
    any_lab.provider.resume(any_lab.made[0], seen.ref)
    assert any_lab.run(seen.ref, "cat file").stdout == b"kept\n"


def test_a_container_unpaused_by_hand_runs(lab: Lab) -> None:
    seen = lab.sandbox()
    lab.provider.pause(seen.ref, lambda _ref: None)
    lab.engine.unpause(seen.ref.data["container"])
    assert lab.provider.inspect(seen.ref).condition == "running"
    assert lab.provider.pause(seen.ref, lambda _ref: None) == seen.ref


def test_a_container_restarted_by_hand_is_another_incarnation(any_lab: Lab) -> None:
    seen = any_lab.sandbox()
    any_lab.run(seen.ref, "echo lost > file")
    any_lab.engine.restart(seen.ref.data["container"], timeout=0)
    now = any_lab.provider.inspect(seen.ref)
    assert now.condition == "running"
    assert now.ref == seen.ref
    assert now.incarnation
    assert now.incarnation != seen.incarnation
    assert "restarted" in now.notes[0]
    assert [each.ref for each in any_lab.provider.find(seen.sandbox_id, any_lab.installation)] == [seen.ref]
    result = any_lab.run(seen.ref, "cat file || echo works")
    assert result.stdout == b"works\n", "its files lay in memory"


def test_during_a_restart_by_hand_nothing_is_concluded(lab: Lab) -> None:
    seen = lab.sandbox()
    with ThreadPoolExecutor() as pool:
        for _ in range(3):
            restart = pool.submit(lab.engine.restart, seen.ref.data["container"], timeout=0)
            conditions = {lab.provider.inspect(seen.ref).condition}
            while not restart.done():
                conditions.add(lab.provider.inspect(seen.ref).condition)
            restart.result(PATIENCE)
            assert conditions == {"running"}


def test_a_restart_loses_what_was_secret_and_says_so(any_lab: Lab) -> None:
    seen = any_lab.sandbox(env={"TOKEN": "x"})
    assert any_lab.run(seen.ref, "echo $TOKEN").stdout == b"x\n"
    any_lab.engine.restart(seen.ref.data["container"], timeout=0)
    with pytest.raises(ProviderNotRunning, match="environment variables are lost"):
        any_lab.run(seen.ref, "echo $TOKEN")


def test_memory_runs_out_for_the_program_and_not_for_the_sandbox(any_lab: Lab) -> None:
    seen = any_lab.sandbox()
    result = any_lab.run(seen.ref, "tail /dev/zero")
    assert not result.timed_out
    assert result.exit_code != 0
    assert any_lab.run(seen.ref, "echo alive").stdout == b"alive\n"
    assert any_lab.provider.inspect(seen.ref).incarnation == seen.incarnation


def test_an_out_of_memory_kill_is_told_from_any_other(any_lab: Lab) -> None:
    # Each process may take what the sandbox may; only together do they take more than that and the files' share.
    # Eight small ones have taken their part before the last begins, which then is the largest: the kernel picks that.
    seen = any_lab.sandbox(limits=Limits(memory_mb=64, processes=64, disk_mb=16))
    hold = "mkfifo $i; tail <$i | sleep 60 & head -c 11000000 /dev/zero >$i"
    killed = any_lab.run(seen.ref, f"for i in 1 2 3 4 5 6 7 8; do {hold}; done; exec tail /dev/zero")
    assert (killed.exit_code, killed.signal, killed.oom_killed) == (137, 9, True), killed
    shot = any_lab.run(seen.ref, "kill -KILL $$")
    assert (shot.exit_code, shot.signal, shot.oom_killed) == (137, 9, False)
    plain = any_lab.run(seen.ref, "exit 137")
    assert (plain.exit_code, plain.signal, plain.oom_killed) == (137, None, False)


def test_an_engine_that_cannot_be_reached_concludes_nothing(remote_lab: Lab, remote_engine: Doorway) -> None:
    spec = remote_lab.spec()
    seen = remote_lab.provider.ensure(spec)
    remote_engine.cut()
    provider, ref = remote_lab.provider, seen.ref
    calls: dict[str, Callable[[], object]] = {
        "inspect": lambda: provider.inspect(ref),
        "find": lambda: provider.find(seen.sandbox_id, remote_lab.installation),
        "owned": lambda: list(provider.owned(remote_lab.installation)),
        "destroy": lambda: provider.destroy(ref),
        "discard": lambda: provider.discard(seen.sandbox_id, remote_lab.installation),
        "pause": lambda: provider.pause(ref, lambda _ref: None),
        "resume": lambda: provider.resume(spec, ref),
        "run": lambda: remote_lab.run(ref, "echo"),
        "ensure": lambda: provider.ensure(replace(spec, generation=2)),
        "read_file": lambda: b"".join(provider.read_file(ref, "a", limit=10)),
    }
    for name, call in calls.items():
        with pytest.raises(ProviderError) as caught:
            call()
        assert isinstance(caught.value, ProviderUnavailable | ProviderOutcomeUnknown), name
        assert caught.value.retryable, name
    assert [finding.ok for finding in provider.diagnose()] == [False]
    remote_engine.mend()
    assert provider.inspect(ref).condition == "running"
    assert remote_lab.run(ref, "echo alive").stdout == b"alive\n", "found again without a restart"


def test_a_connection_cut_during_a_run_leaves_the_outcome_unknown_and_ends_the_run(
    remote_lab: Lab, remote_engine: Doorway
) -> None:
    seen = remote_lab.sandbox()
    listener = Listener()
    code = "echo up; while :; do echo -n x >> beat; sleep 0.05; done"
    with ThreadPoolExecutor() as pool:
        run = pool.submit(remote_lab.run, seen.ref, code, timeout=60, on_output=listener)
        assert listener.came.wait(PATIENCE)
        remote_engine.cut()
        with pytest.raises(ProviderOutcomeUnknown):
            run.result(PATIENCE)
    remote_engine.mend()

    def beats() -> int:
        return int(remote_lab.run(seen.ref, "cat beat | wc -c").stdout)

    until(lambda: beats() == beats(), "the program stands still")


def test_another_engine_proves_nothing(lab: Lab) -> None:
    seen = lab.sandbox()
    elsewhere = replace(
        seen.ref, data={**seen.ref.data, "container": "0" * 64, "engine": "ANOTHER:ENGINE", "folder": ""}
    )
    with pytest.raises(ProviderUnavailable, match="another Docker Engine"):
        lab.provider.inspect(elsewhere)
    with pytest.raises(ProviderUnavailable):
        lab.provider.destroy(elsewhere)
    with pytest.raises(ProviderUnavailable):
        lab.run(elsewhere, "echo")


def test_an_execution_is_not_repeated_through_another_connection(
    remote_lab: Lab, docker_image: str, folder: Any
) -> None:
    seen = remote_lab.sandbox()
    request = RunRequest("ex_once", 20, "bash", b"echo -n x >> once")
    remote_lab.provider.run(seen.ref, request)
    other = DockerProvider(remote_lab.provider.url, image=docker_image, folder=folder)
    try:
        with pytest.raises(ProviderError):
            other.run(seen.ref, request)
    finally:
        other.close()
    assert remote_lab.run(seen.ref, "cat once").stdout == b"x"
