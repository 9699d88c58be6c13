"""E2B ends a sandbox by itself: when, and that nobody ever makes it sooner by chance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.adapters.providers.e2b.control import LONGEST_TTL, seconds_until
from nexus.domain.errors import (
    ProviderAuth,
    ProviderGone,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
)
from nexus.domain.provider import Ref, SandboxSpec
from tests.integration.e2b.conftest import MakeRequest, MakeSpec
from tests.support.cloud.common import Fault
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY


def left(cloud: E2BCloud, ref: Ref) -> float:
    """Seconds to the deadline that E2B holds."""
    return (cloud.world.sandboxes[ref.data["id"]].end_at - datetime.now(UTC)).total_seconds()


def in_(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_new_sandbox_has_the_deadline_that_was_asked_for(
    cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec
) -> None:
    for ttl in (30, 3600):
        spec = make_spec(ttl=ttl)
        end = cloud.world.sandboxes[provider.ensure(spec).ref.data["id"]].end_at
        assert timedelta(0) <= end - spec.expires_at < timedelta(seconds=10)


def test_a_sandbox_whose_maker_dies_ends_soon(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    cloud.plan.set(Fault.INTERNAL, "timeout", times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.ensure(spec)
    [made] = cloud.sandboxes()
    assert made.end_at <= in_(60)
    seen = provider.ensure(spec)
    assert seen.ref.data["id"] == made.id
    assert left(cloud, seen.ref) > 500, "who adopts it gives it its time"


@pytest.mark.parametrize("fresh", [False, True], ids=["same worker", "another worker"])
def test_every_run_pushes_the_deadline(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest, fresh: bool
) -> None:
    ref = provider.ensure(spec).ref
    for seconds in (900, 1800, 1200):
        worker = E2BProvider(API_KEY) if fresh else provider
        worker.run(ref, make_request(keep_until=in_(seconds)))
        assert left(cloud, ref) > seconds - 100
    assert 1700 < left(cloud, ref) < 1900, "a sooner deadline changes nothing"


def test_a_deadline_that_is_near_is_pushed_before_the_run_starts(
    cloud: E2BCloud, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    provider = E2BProvider(API_KEY, patience=0.5)
    ref = provider.ensure(make_spec(ttl=20)).ref
    cloud.plan.set(Fault.INTERNAL, "connect")
    request = make_request("echo -n x >> ran", timeout=30, keep_until=in_(600))
    with pytest.raises(ProviderUnavailable):  # of the push it is unknown, of the run it is not
        provider.run(ref, request)
    cloud.plan.clear()
    assert provider.run(ref, make_request("cat ran 2>/dev/null || echo none")).stdout == b"none\n"


def test_a_push_beside_a_run_spoils_no_result_and_is_made_up_for(
    cloud: E2BCloud, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    provider = E2BProvider(API_KEY, patience=0.5)
    ref = provider.ensure(make_spec(ttl=600)).ref
    cloud.plan.set(Fault.UNAUTHENTICATED, "connect")
    assert provider.run(ref, make_request(keep_until=in_(1200))).stdout == b"fine\n"
    assert left(cloud, ref) <= 600
    with pytest.raises(ProviderAuth):
        provider.run(ref, make_request(keep_until=in_(1200)))
    cloud.plan.clear()
    assert provider.run(ref, make_request(keep_until=in_(1200))).stdout == b"fine\n"
    assert left(cloud, ref) > 1100


def test_extensions_at_once_leave_the_latest(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    ref = provider.ensure(spec).ref
    workers = [E2BProvider(API_KEY) for _ in range(4)]
    ends = [in_(700 + 10 * n) for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(workers[n % 4].extend, ref, end) for n, end in enumerate(ends)]
        for each in done:
            each.result(60)
    latest = cloud.world.sandboxes[ref.data["id"]].end_at
    assert timedelta(0) <= latest - ends[-1] < timedelta(seconds=5)


def test_a_deadline_that_was_moved_meanwhile_is_not_moved_back(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec
) -> None:
    ref = provider.ensure(spec).ref
    seen = provider._control.info(ref.data["id"])
    E2BProvider(API_KEY).extend(ref, in_(7200))
    provider._control.push(seen, in_(1200))
    assert left(cloud, ref) > 7000


def test_looking_and_connecting_lengthen_nothing(
    cloud: E2BCloud, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    ref = E2BProvider(API_KEY).ensure(make_spec(ttl=100)).ref
    fresh = E2BProvider(API_KEY)
    fresh.inspect(ref)
    fresh.run(ref, make_request())
    fresh.write_file(ref, "f", [b"x"], limit=9)
    assert left(cloud, ref) <= 100


def test_a_paused_sandbox_has_no_deadline_and_wakes_with_the_one_it_is_given(
    cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    spec = make_spec(ttl=1)
    ref = provider.ensure(make_spec(ttl=600, sandbox_id=spec.sandbox_id)).ref
    provider.pause(ref, lambda _ref: None)
    provider.extend(ref, in_(1200))
    assert provider.inspect(ref).condition == "paused", "extending wakes nobody"
    with pytest.raises(ProviderNotRunning):
        provider.run(ref, make_request(keep_until=in_(1200)))
    assert provider.inspect(ref).condition == "paused"
    provider.resume(make_spec(ttl=77, sandbox_id=spec.sandbox_id), ref)
    assert 40 < left(cloud, ref) < 90


def test_resuming_what_runs_never_shortens(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, make_spec: MakeSpec
) -> None:
    ref = provider.ensure(spec).ref
    provider.resume(make_spec(ttl=5, sandbox_id=spec.sandbox_id), ref)
    assert left(cloud, ref) > 500


def test_what_has_run_out_is_gone(
    cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    ref = provider.ensure(make_spec(ttl=1)).ref
    while provider.inspect(ref).condition != "gone":
        Event().wait(0.05)
    with pytest.raises(ProviderGone):
        provider.run(ref, make_request(keep_until=in_(600)))
    assert provider.destroy(ref) is False


def test_seconds_are_whole_and_within_what_e2b_takes() -> None:
    assert seconds_until(in_(-50)) == 1
    assert seconds_until(in_(10.2)) == 11
    assert seconds_until(in_(10**7)) == LONGEST_TTL
