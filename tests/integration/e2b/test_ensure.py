"""One sandbox, whatever happens while it is made, and every one of them found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.errors import (
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import Limits, SandboxSpec, Template
from tests.integration.e2b.conftest import MakeSpec
from tests.support.cloud.common import Fault
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY
from tests.support.cloud.e2b_world import KeyUse

ROOT = Path(__file__).parents[3]

ADOPT = """
import json, sys
from datetime import UTC, datetime, timedelta
from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import RunRequest, SandboxSpec, Template
provider = E2BProvider()
spec = SandboxSpec(sys.argv[1], 1, "here", "test", Template(), datetime.now(UTC) + timedelta(minutes=10))
seen = provider.ensure(spec)
out = provider.run(seen.ref, RunRequest("ex_fresh", 20, "bash", b"echo adopted")).stdout.decode()
print(json.dumps([seen.ref.to_json(), out]))
"""


@pytest.mark.parametrize("keys", [True, False], ids=["the key is remembered", "the key is forgotten"])
def test_a_lost_answer_is_adopted_by_a_fresh_process(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, keys: bool
) -> None:
    cloud.world.honour_keys = keys
    cloud.plan.set(Fault.ANSWER_LOST, "create", times=1)
    with pytest.raises(ProviderOutcomeUnknown):
        provider.ensure(spec)
    [left] = cloud.sandboxes()
    assert [seen.ref.data["id"] for seen in provider.find(spec.sandbox_id, "here")] == [left.id]
    fresh = subprocess.run(
        [sys.executable, "-c", ADOPT, spec.sandbox_id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert fresh.returncode == 0, fresh.stderr
    ref, out = json.loads(fresh.stdout)
    assert (ref["data"]["id"], out) == (left.id, "adopted\n")
    assert [sandbox.id for sandbox in cloud.sandboxes()] == [left.id]


def test_workers_at_once_with_a_service_that_forgets_keys(cloud: E2BCloud, spec: SandboxSpec) -> None:
    cloud.world.honour_keys = False
    together = Barrier(4)

    def ensure() -> str:
        provider = E2BProvider(API_KEY)
        together.wait(30)
        return provider.ensure(spec).ref.data["id"]

    with ThreadPoolExecutor(4) as pool:
        made = {run.result(60) for run in [pool.submit(ensure) for _ in range(4)]}
    # Each may have made one; whoever looks next leaves the oldest alone, and that is what all come to.
    survivor = E2BProvider(API_KEY).ensure(spec).ref.data["id"]
    assert [sandbox.id for sandbox in cloud.sandboxes()] == [survivor]
    assert survivor in made


def test_a_create_under_way_elsewhere_is_waited_for(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    made = provider.ensure(spec)
    [key] = cloud.world.keys
    cloud.world.keys[key] = KeyUse(cloud.world.keys[key].body)
    sandbox = cloud.world.sandboxes.pop(made.ref.data["id"])
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(E2BProvider(API_KEY).ensure, spec)
        while cloud.requests["create"] < 2:
            pass
        cloud.world.sandboxes[sandbox.id] = sandbox
        assert other.result(30).ref == made.ref


def test_a_create_whose_outcome_e2b_has_lost_is_made_anew(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec
) -> None:
    provider.destroy(provider.ensure(spec).ref)
    [key] = cloud.world.keys
    cloud.world.keys[key] = KeyUse(cloud.world.keys[key].body)  # and so it stays, whoever asks with this key
    made = provider.ensure(spec)
    assert [sandbox.id for sandbox in cloud.sandboxes()] == [made.ref.data["id"]]
    assert provider.ensure(spec).ref == made.ref


@pytest.mark.parametrize("change", ["pause", "extend", "destroy"])
def test_what_is_being_changed_is_asked_again_later(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, change: str
) -> None:
    ref = provider.ensure(spec).ref
    [sandbox] = cloud.sandboxes()
    changes: dict[str, Callable[[], object]] = {
        "pause": lambda: provider.pause(ref, lambda _ref: None),
        "extend": lambda: provider.extend(ref, spec.expires_at + timedelta(hours=1)),
        "destroy": lambda: provider.destroy(ref),
    }
    sandbox.in_transition = True
    with pytest.raises(ProviderUnavailable):
        changes[change]()
    sandbox.in_transition = False
    changes[change]()


def test_a_key_whose_sandbox_has_ended_makes_a_new_one(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec
) -> None:
    first = provider.ensure(spec)
    provider.destroy(first.ref)
    second = provider.ensure(spec)
    assert second.ref != first.ref
    assert provider.inspect(second.ref).condition == "running"
    assert provider.ensure(spec).ref == second.ref


def test_of_several_the_oldest_stays(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    first = provider.ensure(spec)
    original = cloud.world.sandboxes[first.ref.data["id"]]
    for _ in range(2):
        cloud.world.create(
            {"templateID": "base", "metadata": original.metadata, "timeout": 60, "envVars": original.env}
        )
    assert len(provider.find(spec.sandbox_id, "here")) == 3
    assert provider.ensure(spec).ref == first.ref
    assert [sandbox.id for sandbox in cloud.sandboxes()] == [first.ref.data["id"]]


def test_long_lists_are_read_to_their_end(cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec) -> None:
    cloud.world.page_size = 2
    made = {provider.ensure(make_spec()).ref.data["id"] for _ in range(5)}
    assert {seen.ref.data["id"] for seen in provider.owned("here")} == made


def test_names_that_are_hard_to_quote(provider: E2BProvider, make_spec: MakeSpec) -> None:
    spec = make_spec(installation="ünder & über=1/2 %41", name="a+b c")
    seen = provider.ensure(spec)
    assert [found.ref for found in provider.owned("ünder & über=1/2 %41")] == [seen.ref]
    assert list(provider.owned("ünder")) == []


def test_what_is_asked_for_arrives(cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec) -> None:
    provider.ensure(
        make_spec(network="none", template=Template(template_id="python-data", env={"A": "1"}), env={"B": "2"})
    )
    provider.ensure(make_spec())
    offline, online = cloud.sandboxes()
    assert (offline.internet, offline.template, offline.env) == (False, "python-data", {"A": "1", "B": "2"})
    assert (online.internet, online.template, online.on_timeout) == (True, "base", "kill")


def test_limits_that_e2b_does_not_keep_are_said(provider: E2BProvider, make_spec: MakeSpec) -> None:
    limits = Limits(memory_mb=512, cpus=2.0, processes=None, disk_mb=None)
    assert provider.ensure(make_spec(limits=limits)).notes == (
        "E2B's template decides, not this sandbox's limits: memory_mb, cpus",
    )
    bare = Limits(memory_mb=None, cpus=None, processes=None, disk_mb=None)
    assert provider.ensure(make_spec(limits=bare)).notes == ()


def test_the_configured_template_is_the_default(cloud: E2BCloud, make_spec: MakeSpec) -> None:
    E2BProvider(API_KEY, "python-data").ensure(make_spec())
    assert [sandbox.template for sandbox in cloud.sandboxes()] == ["python-data"]


def test_what_e2b_cannot_do_is_refused_before_anything_is_made(
    cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec
) -> None:
    with pytest.raises(ProviderUnsupported):
        provider.ensure(make_spec(template=Template(gpu="A100")))
    with pytest.raises(ProviderInvalidRequest, match="no-such-template"):
        provider.ensure(make_spec(template=Template(template_id="no-such-template")))
    assert cloud.sandboxes() == []


def test_a_plan_with_a_shorter_limit_says_so(cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec) -> None:
    cloud.world.max_timeout = 3600
    with pytest.raises(ProviderInvalidRequest, match="1 hours"):
        provider.ensure(make_spec(ttl=7200))


def test_a_throttled_create_leaves_nothing(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    cloud.plan.set(Fault.THROTTLED, "create")
    with pytest.raises(ProviderRateLimited):
        provider.ensure(spec)
    assert cloud.sandboxes() == []


def test_generations_are_kept_apart(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec) -> None:
    first = provider.ensure(spec)
    second = provider.ensure(replace(spec, generation=2))
    assert len({sandbox.id for sandbox in cloud.sandboxes()}) == 2
    assert [seen.generation for seen in provider.find(spec.sandbox_id, "here")] == [1, 2]
    assert {first.generation, second.generation} == {1, 2}


def test_a_secret_is_in_no_error(cloud: E2BCloud, provider: E2BProvider, make_spec: MakeSpec) -> None:
    spec = make_spec(env={"TOKEN": "canary-1f2e"})
    for fault in (Fault.INTERNAL, Fault.FORBIDDEN, Fault.ANSWER_LOST):
        cloud.plan.set(fault, "create", times=1)
        with pytest.raises(Exception) as raised:
            provider.ensure(replace(spec, sandbox_id=f"{spec.sandbox_id[:-1]}{len(fault) % 10}"))
        said = f"{raised.value!r} {raised.value.details}"  # type: ignore[attr-defined]
        assert "canary-1f2e" not in said
        assert API_KEY not in said
