"""Runs whose connection breaks: found again where that is possible, never run twice, and never said to be what they
are not.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.errors import (
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import Observed, Ref, SandboxSpec
from tests.integration.e2b.conftest import MakeRequest
from tests.support.cloud.common import Fault
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY
from tests.support.cloud.e2b_warm import warm_up

COUNTING = "echo -n x >> ran; for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.05; done"
COUNTED = b"".join(b"line %d\n" % i for i in range(1, 9))


@pytest.fixture
def provider(cloud: E2BCloud) -> E2BProvider:
    return E2BProvider(API_KEY, patience=20)


@pytest.fixture(params=["cold", "warm"])
def sandbox(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, request: pytest.FixtureRequest) -> Observed:
    """New, or with a fork server in it."""
    seen = provider.ensure(spec)
    if request.param == "warm":
        warm_up(provider, cloud, seen.ref)
    return seen


def ran(provider: E2BProvider, ref: Ref, make_request: MakeRequest) -> bytes:
    return provider.run(ref, make_request("cat ran 2>/dev/null || true")).stdout


def test_a_cut_stream_is_taken_up_where_it_stopped(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    heard: list[bytes] = []
    cloud.plan.set(Fault.STREAM_CUT, "start", times=1)
    result = provider.run(sandbox.ref, make_request(COUNTING), lambda _stream, data: heard.append(data))
    assert cloud.plan.hits["start", Fault.STREAM_CUT] == 1
    assert (result.stdout, result.exit_code) == (COUNTED, 0)
    assert b"".join(heard) == COUNTED
    assert ran(provider, sandbox.ref, make_request) == b"x"


def test_a_stream_that_is_cut_again_and_again(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    cloud.plan.set(Fault.STREAM_CUT, "start", times=4)
    request = make_request("python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 3000)'; exit 5")
    result = provider.run(sandbox.ref, request)
    assert cloud.plan.hits["start", Fault.STREAM_CUT] == 4
    assert (result.stdout, result.exit_code) == (bytes(range(256)) * 3000, 5)


def test_a_start_whose_answer_is_lost_runs_once(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    cloud.plan.set(Fault.ANSWER_LOST, "start", times=1)
    result = provider.run(sandbox.ref, make_request(COUNTING))
    assert (result.stdout, result.exit_code) == (COUNTED, 0)
    assert ran(provider, sandbox.ref, make_request) == b"x"


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.UNAVAILABLE])
def test_a_start_that_failed_is_proven_not_to_have_happened(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest, fault: Fault
) -> None:
    cloud.plan.set(fault, "start", times=1)
    request = make_request(COUNTING)
    with pytest.raises(ProviderUnavailable):
        provider.run(sandbox.ref, request)
    # Its id is used up: should the request arrive after all, it does nothing.
    with pytest.raises(ProviderInvalidRequest):
        provider.run(sandbox.ref, request)
    assert ran(provider, sandbox.ref, make_request) == b""


def test_a_slow_start_is_refused_when_it_arrives_at_last(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest
) -> None:
    provider = E2BProvider(API_KEY, patience=0.3)
    sandbox = provider.ensure(spec)
    cloud.plan.set(Fault.SLOW, "start", times=1)
    with pytest.raises(ProviderUnavailable):
        provider.run(sandbox.ref, make_request(COUNTING, timeout=1))
    cloud.plan.clear()
    while len(cloud.users) < 2:
        threading.Event().wait(0.01)
    assert ran(provider, sandbox.ref, make_request) == b""


def test_a_sandbox_that_cannot_be_reached_any_more(
    cloud: E2BCloud, spec: SandboxSpec, make_request: MakeRequest
) -> None:
    provider = E2BProvider(API_KEY, patience=0.5)
    sandbox = provider.ensure(spec)
    cloud.plan.set(Fault.STREAM_CUT_DEAD, "start", times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, make_request(COUNTING))
    assert provider.inspect(sandbox.ref).condition == "running", "unreachable is not gone"


def test_a_sandbox_that_is_killed_under_a_run(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    cloud.plan.set(Fault.KILLED, "start", times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, make_request(COUNTING))
    assert provider.inspect(sandbox.ref).condition == "gone"
    with pytest.raises(ProviderGone):
        provider.run(sandbox.ref, make_request())


def test_a_sandbox_that_is_paused_under_a_run(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as pool:
        run = pool.submit(provider.run, sandbox.ref, make_request("echo up; sleep 5"), lambda *_: begun.set())
        assert begun.wait(20)
        E2BProvider(API_KEY).pause(sandbox.ref, lambda _ref: None)
        with pytest.raises(ProviderOutcomeUnknown):
            run.result(30)
    with pytest.raises(ProviderNotRunning):
        provider.run(sandbox.ref, make_request())
    assert cloud.sandboxes()[0].paused, "looking for the run has woken nobody"


def test_an_outage_of_the_control_plane_proves_nothing(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    provider = E2BProvider(API_KEY, patience=0.3)
    provider.run(sandbox.ref, make_request())
    cloud.plan.set(Fault.UNAUTHENTICATED, "info")
    cloud.plan.set(Fault.KILLED, "start", times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, make_request(COUNTING))


def test_a_program_that_kills_its_keeper(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    heard = "until grep -q bye /tmp/.nexus/runs/*/frames; do sleep 0.02; done"
    code = f"echo bye; (sleep 60; echo x >> ran) & {heard}; kill -KILL $PPID; sleep 60"
    result = provider.run(sandbox.ref, make_request(code))
    assert (result.exit_code, result.signal, result.stdout) == (137, 9, b"bye\n")
    [machine] = [seen.machine for seen in cloud.sandboxes()]
    assert not [line for line in machine.processes().values() if "sleep" in line], "what it started is dead too"


def test_a_program_that_speaks_in_its_keepers_place(
    provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, make_request("sleep 0.3; printf 'o99999999\\nx' > /proc/$PPID/fd/1; sleep 1"))
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, make_request("sleep 0.3; head -c 100000 /dev/zero > /proc/$PPID/fd/1; sleep 1"))
    assert provider.run(sandbox.ref, make_request()).stdout == b"fine\n"


def test_what_only_root_can_kill_is_left_to_root(
    cloud: E2BCloud, provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    # A keeper that has to leave two processes alive, as sudo makes them.
    keeper = '#!/bin/sh\nfor word; do :; done\necho "nexus $word"; echo c2\n'
    provider.write_file(sandbox.ref, "bin/perl", [keeper.encode()], limit=999)
    provider.run(sandbox.ref, make_request("chmod +x bin/perl; echo 'PATH=~/bin:$PATH' > .profile"))
    cloud.users.clear()
    provider.cancel(sandbox.ref, "ex_1")
    assert cloud.users == ["", "root"]


def test_a_template_without_perl_says_so(provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest) -> None:
    sandbox = provider.ensure(spec)
    provider.write_file(sandbox.ref, ".profile", [b"PATH=/nowhere\n"], limit=99)
    with pytest.raises(ProviderUnsupported, match="perl"):
        provider.run(sandbox.ref, make_request())


def test_a_profile_that_prints_does_no_harm(
    provider: E2BProvider, sandbox: Observed, make_request: MakeRequest
) -> None:
    provider.write_file(sandbox.ref, ".profile", ["echo Welcome — 你好; echo nexus\n".encode()], limit=99)
    assert provider.run(sandbox.ref, make_request()).stdout == b"fine\n"


def test_a_sandbox_that_cannot_keep_notes(provider: E2BProvider, sandbox: Observed, make_request: MakeRequest) -> None:
    provider.run(sandbox.ref, make_request("rm -rf /tmp/.nexus; echo > /tmp/.nexus"))
    with pytest.raises(ProviderError, match="cannot begin a run") as raised:
        provider.run(sandbox.ref, make_request())
    assert raised.value.effect == "none"
