"""How sandboxes are made, found, paused and ended in Modal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from modal_proto import api_pb2

from nexus.adapters.providers.modal import CAPABILITIES, ModalProvider
from nexus.domain.errors import ProviderGone, ProviderInvalidRequest, ProviderOutcomeUnknown, ProviderUnavailable
from nexus.domain.provider import Limits, Observed, Ref, SandboxSpec, Template
from tests.integration.modal.conftest import bash, new_spec
from tests.support.cloud.common import Fault
from tests.support.cloud.modal import ModalCloud
from tests.support.cloud.modal_world import SandboxRecord

ROOT = Path(__file__).parents[3]


def record_of(cloud: ModalCloud, seen: Observed) -> SandboxRecord:
    return cloud.record(seen.ref.data["modal_id"])


# --- what is asked of Modal ------------------------------------------------------------------------------------------
def test_a_sandbox_carries_its_id_installation_and_generation(cloud: ModalCloud, patient: ModalProvider) -> None:
    spec = new_spec(generation=3, labels={"team": "not for Modal"})
    record = record_of(cloud, patient.ensure(spec))
    assert record.definition.name == f"{spec.sandbox_id}-g3"
    created = record.tags.pop("nexus_created")
    assert abs(int(created) / 1000 - datetime.now(UTC).timestamp()) < 60
    assert record.tags == {
        "nexus_sandbox": spec.sandbox_id,
        "nexus_installation": "tests",
        "nexus_generation": "3",
    }


def test_modal_gets_the_longest_time_there_is(cloud: ModalCloud, open_provider: Callable[..., ModalProvider]) -> None:
    seen = open_provider(idle_timeout=900).ensure(new_spec())
    definition = record_of(cloud, seen).definition
    assert definition.timeout_secs == 24 * 3600 == CAPABILITIES.max_ttl_seconds
    assert definition.idle_timeout_secs == 900


def test_a_deadline_beyond_modals_own_is_said(patient: ModalProvider) -> None:
    later = patient.ensure(new_spec(expires_at=datetime.now(UTC) + timedelta(days=2)))
    assert any("24 hours" in note for note in later.notes)
    assert not any("24 hours" in note for note in patient.ensure(new_spec()).notes)


def test_limits_are_ceilings_and_what_is_not_kept_is_said(cloud: ModalCloud, patient: ModalProvider) -> None:
    seen = patient.ensure(new_spec(limits=Limits(memory_mb=512, cpus=2.0, processes=9, disk_mb=None)))
    resources = record_of(cloud, seen).definition.resources
    assert (resources.memory_mb, resources.memory_mb_max) == (128, 512)
    assert (resources.milli_cpu, resources.milli_cpu_max) == (125, 2000)
    assert seen.notes == ("Modal does not enforce: processes",)
    small = patient.ensure(new_spec(limits=Limits(memory_mb=64, cpus=0.1, processes=None, disk_mb=None)))
    resources = record_of(cloud, small).definition.resources
    assert (resources.memory_mb, resources.memory_mb_max) == (64, 64)
    assert (resources.milli_cpu, resources.milli_cpu_max) == (100, 100)
    assert small.notes == ()


@pytest.mark.parametrize(("policy", "access"), [("full", "OPEN"), ("none", "BLOCKED")])
def test_network(cloud: ModalCloud, patient: ModalProvider, policy: str, access: str) -> None:
    definition = record_of(cloud, patient.ensure(new_spec(network=policy))).definition
    kind = api_pb2.NetworkAccess.NetworkAccessType
    assert kind.Name(definition.network_access.network_access_type) == access


def test_a_gpu(cloud: ModalCloud, patient: ModalProvider) -> None:
    spec = new_spec(template=Template(gpu="T4"), env={"A": "b c"})
    seen = patient.ensure(spec)
    record = record_of(cloud, seen)
    assert record.definition.resources.gpu_config.gpu_type == "T4"
    assert len(record.id) == len("sb-") + 22, "GPUs need Modal's older kind of sandbox"
    assert patient.ensure(spec).ref == seen.ref
    assert patient.run(seen.ref, bash('echo "$A"')).stdout == b"b c\n"
    assert [found.ref for found in patient.find(spec.sandbox_id, "tests")] == [seen.ref]
    assert patient.inspect(seen.ref).condition == "running"
    assert patient.destroy(seen.ref) is True
    assert patient.inspect(seen.ref).condition == "gone"


def test_a_gpu_that_never_comes_is_not_waited_for(cloud: ModalCloud, provider: ModalProvider) -> None:
    # The SDK would wait 21 minutes, and clean up over the same dead connection when it is told to stop.
    cloud.plan.set(Fault.SLOW, "SandboxGetTaskId")
    cloud.plan.set(Fault.SLOW, "SandboxTerminate")
    with pytest.raises(ProviderOutcomeUnknown):
        provider.ensure(new_spec(template=Template(gpu="T4")))


@pytest.mark.parametrize(
    "template",
    [Template(), Template(image="python:3.12-slim"), Template(name="x", image="x/y", template_id="x/y")],
    ids=["its own", "registry", "an unknown name"],
)
def test_images_are_built_once(cloud: ModalCloud, patient: ModalProvider, template: Template) -> None:
    built = cloud.calls["ImageGetOrCreate"]
    one, two = patient.ensure(new_spec(template=template)), patient.ensure(new_spec(template=template))
    assert cloud.calls["ImageGetOrCreate"] > built
    again = cloud.calls["ImageGetOrCreate"]
    assert record_of(cloud, one).definition.image_id == record_of(cloud, two).definition.image_id
    patient.ensure(new_spec(template=template))
    assert cloud.calls["ImageGetOrCreate"] == again


def test_an_image_by_its_id_and_one_that_is_not_there(cloud: ModalCloud, patient: ModalProvider) -> None:
    image_id = record_of(cloud, patient.ensure(new_spec())).definition.image_id
    template = Template(template_id=image_id)
    assert record_of(cloud, patient.ensure(new_spec(template=template))).definition.image_id == image_id
    with pytest.raises(ProviderInvalidRequest, match="im-nowhere"):
        patient.ensure(new_spec(template=Template(template_id="im-nowhere")))
    cloud.forget_image(image_id)
    with pytest.raises(ProviderInvalidRequest):
        patient.ensure(new_spec(template=template))


# --- found again -----------------------------------------------------------------------------------------------------
def test_lists_are_read_to_their_last_page(cloud: ModalCloud, patient: ModalProvider) -> None:
    specs = [new_spec() for _ in range(5)]
    seen = [patient.ensure(spec) for spec in specs]
    cloud.control.page_size = 2
    try:
        listed = list(patient.owned("tests"))
    finally:
        cloud.control.page_size = 100
    assert [one.ref for one in listed] == [one.ref for one in seen], "all of them, oldest first"
    assert all(one.created_at is not None for one in listed)


def test_a_lost_answer_to_a_create_is_one_sandbox_for_a_fresh_process(
    cloud: ModalCloud, provider: ModalProvider
) -> None:
    provider.ensure(new_spec())  # so that what is lost is the create's answer
    spec = new_spec(env={"A": "1"})
    cloud.plan.set(Fault.ANSWER_LOST, "SandboxCreateV2")
    cloud.plan.set(Fault.SLOW, "SandboxGetFromNameV2")
    with pytest.raises(ProviderOutcomeUnknown):
        provider.ensure(spec)
    cloud.plan.clear()
    adopted = in_a_fresh_process(spec)
    mine = [record.id for record in cloud.running() if record.tags["nexus_sandbox"] == spec.sandbox_id]
    assert [adopted["modal_id"]] == mine


def test_a_lost_answer_to_a_create_is_found_by_its_name(cloud: ModalCloud, patient: ModalProvider) -> None:
    patient.ensure(new_spec())
    spec = new_spec()
    cloud.plan.set(Fault.ANSWER_LOST, "SandboxCreateV2")
    seen = patient.ensure(spec)
    cloud.plan.clear()
    assert patient.run(seen.ref, bash("echo mine")).stdout == b"mine\n"
    assert len(patient.find(spec.sandbox_id, "tests")) == 1


def test_a_creator_that_is_killed_leaves_one_sandbox_to_adopt(cloud: ModalCloud, patient: ModalProvider) -> None:
    spec = new_spec()
    cloud.plan.set(Fault.SLOW, "SandboxCreateV2")
    child = subprocess.Popen([sys.executable, "-c", ENSURE, dumped(spec)], env=environment(), cwd=ROOT)
    try:
        while not cloud.plan.hits["SandboxCreateV2", Fault.SLOW]:
            assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    cloud.plan.clear()  # the request that nobody waits for any more goes through, or does not
    seen = patient.ensure(spec)
    assert [found.ref for found in patient.find(spec.sandbox_id, "tests")] == [seen.ref]


ENSURE = """
import json, sys
from datetime import datetime
from nexus.adapters.providers.modal import ModalProvider
from nexus.domain.provider import Limits, SandboxSpec, Template
given = json.loads(sys.argv[1])
given |= {"template": Template(), "limits": Limits(), "expires_at": datetime.fromisoformat(given["expires_at"])}
provider = ModalProvider()
print(json.dumps(dict(provider.ensure(SandboxSpec(**given)).ref.data)))
provider.close()
"""


def dumped(spec: SandboxSpec) -> str:
    return json.dumps(asdict(spec) | {"expires_at": spec.expires_at.isoformat()})


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def in_a_fresh_process(spec: SandboxSpec) -> dict[str, str]:
    command = [sys.executable, "-W", "error", "-c", ENSURE, dumped(spec)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    data: dict[str, str] = json.loads(done.stdout)
    return data


# --- pause and resume ------------------------------------------------------------------------------------------------
def test_the_environment_survives_a_pause_without_being_in_a_ref(cloud: ModalCloud, patient: ModalProvider) -> None:
    secret = "canary-$HOME 'quoted' \"double\"\nsecond line\n"
    template = Template(env={"FROM_TEMPLATE": "t", "TOKEN": "template's", "LATER": "template's"})
    spec = new_spec(template=template, env={"TOKEN": secret, "OTHER": "o"})
    sandbox = patient.ensure(spec)
    saved: list[Ref] = []
    paused = patient.pause(sandbox.ref, saved.append)
    bare = replace(spec, env={}, generation=2)  # what recovery knows: not the values
    awake = patient.resume(bare, paused)
    show = bash('printf %s "$TOKEN|$OTHER|$FROM_TEMPLATE"')
    assert patient.run(awake.ref, show).stdout.decode() == f"{secret}|o|t"
    once_more = patient.resume(
        replace(bare, generation=3, env={"OTHER": "new"}), patient.pause(awake.ref, saved.append)
    )
    show = bash('printf %s "$TOKEN|$OTHER|$FROM_TEMPLATE"')
    assert patient.run(once_more.ref, show).stdout.decode() == f"{secret}|new|t"
    run_wins = bash('echo "$OTHER"; stat -c %a ~/.nexus/env', env={"OTHER": "run"})
    assert patient.run(once_more.ref, run_wins).stdout == b"run\n600\n"
    assert "canary" not in json.dumps([ref.to_json() for ref in saved])
    for record in cloud.world.sandboxes.values():
        assert "canary" not in json.dumps(record.tags)


def test_nothing_of_how_it_is_done_shows_in_a_programs_environment(patient: ModalProvider) -> None:
    sandbox = patient.ensure(new_spec(env={"MINE": "1"}))
    names = patient.run(sandbox.ref, bash("compgen -e")).stdout.decode().split()
    assert [name for name in names if "nexus" in name.lower()] == ["NEXUS_RUN"]
    assert "MINE" in names


def test_a_pause_that_cannot_end_the_old_one_stands_and_resume_ends_it(
    cloud: ModalCloud, patient: ModalProvider
) -> None:
    spec = new_spec()
    sandbox = patient.ensure(spec)
    cloud.plan.set(Fault.INTERNAL, "SandboxTerminateV2")
    saved: list[Ref] = []
    paused = patient.pause(sandbox.ref, saved.append)
    cloud.plan.clear()
    assert saved == [paused]
    assert patient.inspect(sandbox.ref).condition == "running"
    awake = patient.resume(replace(spec, generation=2), paused)
    assert patient.inspect(sandbox.ref).condition == "gone"
    assert [seen.ref for seen in patient.owned("tests")] == [awake.ref], "never two of one"


def test_pausing_again_finishes_a_pause_that_was_cut_short(cloud: ModalCloud, patient: ModalProvider) -> None:
    sandbox = patient.ensure(new_spec())
    cloud.plan.set(Fault.INTERNAL, "SandboxTerminateV2")
    paused = patient.pause(sandbox.ref, lambda _ref: None)
    cloud.plan.clear()
    assert patient.pause(paused, lambda _ref: None) == paused
    assert cloud.running() == []
    assert patient.inspect(paused).condition == "paused"


def test_a_resume_whose_answer_is_lost_is_one_sandbox(cloud: ModalCloud, provider: ModalProvider) -> None:
    spec = new_spec()
    paused = provider.pause(provider.ensure(spec).ref, lambda _ref: None)
    cloud.plan.set(Fault.ANSWER_LOST, "SandboxCreateV2")
    cloud.plan.set(Fault.SLOW, "SandboxGetFromNameV2")
    with pytest.raises(ProviderOutcomeUnknown):
        provider.resume(replace(spec, generation=2), paused)
    cloud.plan.clear()
    awake = provider.resume(replace(spec, generation=2), paused)
    assert [record.id for record in cloud.running()] == [awake.ref.data["modal_id"]]
    assert [seen.ref for seen in provider.find(spec.sandbox_id, "tests")] == [awake.ref]


def test_snapshots_are_deleted_when_nothing_can_need_them(cloud: ModalCloud, patient: ModalProvider) -> None:
    spec = new_spec()
    first = patient.pause(patient.ensure(spec).ref, lambda _ref: None)
    awake = patient.resume(replace(spec, generation=2), first)
    assert patient.inspect(first).condition == "paused", "kept until its successor is safe"
    second = patient.pause(awake.ref, lambda _ref: None)
    assert patient.inspect(first).condition == "gone"
    third = patient.resume(replace(spec, generation=3), second)
    assert patient.destroy(third.ref) is True
    assert patient.inspect(second).condition == "gone"


def test_a_snapshot_that_is_gone_cannot_be_resumed(cloud: ModalCloud, patient: ModalProvider) -> None:
    spec = new_spec()
    paused = patient.pause(patient.ensure(spec).ref, lambda _ref: None)
    cloud.forget_image(paused.data["image_id"])
    assert patient.inspect(paused).condition == "gone"
    with pytest.raises(ProviderGone):
        patient.resume(replace(spec, generation=2), paused)
    with pytest.raises(ProviderGone):
        patient.pause(paused, lambda _ref: None)
    with pytest.raises(ProviderGone):
        patient.extend(paused, datetime.now(UTC))


def test_a_pause_that_fails_harms_nothing(cloud: ModalCloud, provider: ModalProvider) -> None:
    sandbox = provider.ensure(new_spec())
    cloud.plan.set(Fault.INTERNAL, "TaskSnapshotFilesystem")
    with pytest.raises(ProviderUnavailable):
        provider.pause(sandbox.ref, lambda _ref: None)
    cloud.plan.clear()
    assert provider.run(sandbox.ref, bash("echo alive")).stdout == b"alive\n"
