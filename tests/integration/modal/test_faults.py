"""Every fault of Modal against every operation: which error comes of it, and that an outage is never "gone"."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nexus.adapters.providers.modal import ModalProvider, commands, running
from nexus.domain.errors import (
    NexusError,
    ProviderAuth,
    ProviderGone,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
)
from nexus.domain.provider import Observed, Ref, SandboxSpec
from tests.integration.modal.conftest import bash, new_spec
from tests.support.cloud.common import NO_SERVER, VANISHED, Fault
from tests.support.cloud.modal import ModalCloud

Operation = Callable[[ModalProvider, SandboxSpec, Ref, Ref], object]
"""Takes a provider, the spec and ref of a sandbox that runs, and the ref of one that is paused."""

OPERATIONS: Mapping[str, Operation] = {
    "ensure": lambda provider, spec, ref, paused: provider.ensure(new_spec()),
    "find": lambda provider, spec, ref, paused: provider.find(spec.sandbox_id, spec.installation),
    "inspect": lambda provider, spec, ref, paused: provider.inspect(ref),
    "inspect paused": lambda provider, spec, ref, paused: provider.inspect(paused),
    "run": lambda provider, spec, ref, paused: provider.run(ref, bash("echo -n x >> ran", timeout=2)),
    "run again": lambda provider, spec, ref, paused: provider.run(ref, bash("echo -n x >> ran", timeout=2)),
    "cancel": lambda provider, spec, ref, paused: provider.cancel(ref, "ex_some"),
    "extend": lambda provider, spec, ref, paused: provider.extend(ref, spec.expires_at),
    "pause": lambda provider, spec, ref, paused: provider.pause(ref, lambda _ref: None),
    "resume": lambda provider, spec, ref, paused: provider.resume(replace(new_spec(), generation=2), paused),
    "destroy": lambda provider, spec, ref, paused: provider.destroy(ref),
    "destroy paused": lambda provider, spec, ref, paused: provider.destroy(paused),
    "discard": lambda provider, spec, ref, paused: provider.discard(spec.sandbox_id, spec.installation),
    "owned": lambda provider, spec, ref, paused: list(provider.owned(spec.installation)),
    "read_file": lambda provider, spec, ref, paused: b"".join(provider.read_file(ref, "data", limit=100)),
    "write_file": lambda provider, spec, ref, paused: provider.write_file(ref, "data", [b"new"], limit=100),
}
WITH_PAUSED = {"inspect paused", "resume", "destroy paused"}
CHANGING = {"ensure", "run again", "cancel", "destroy", "destroy paused"}
"""Operations whose first step may have an effect, so that silence leaves open whether it had. A first run in a sandbox
looks for it before anything is started; when it is run in again, the connection to it stands already."""


def error_of(fault: Fault | str, operation: str) -> type[NexusError]:
    """What the fault, when it meets every call and does not pass, makes of the operation."""
    if fault is Fault.THROTTLED:
        return ProviderRateLimited
    if fault in (Fault.UNAUTHENTICATED, Fault.FORBIDDEN):
        return ProviderAuth
    if fault is Fault.UNAVAILABLE and operation != "run again":
        return ProviderUnavailable  # the server itself says that it did nothing
    return ProviderOutcomeUnknown if operation in CHANGING else ProviderUnavailable


LASTING = [
    Fault.THROTTLED,
    Fault.UNAVAILABLE,
    Fault.INTERNAL,
    Fault.UNAUTHENTICATED,
    Fault.FORBIDDEN,
    Fault.ANSWER_LOST,
    Fault.SLOW,
    NO_SERVER,
]


class Fleet:
    """A sandbox that runs, with a file, and one that is paused, for the operations that need it."""

    def __init__(self, provider: ModalProvider, operation: str) -> None:
        self.spec = new_spec()
        self.ref = provider.ensure(self.spec).ref
        provider.write_file(self.ref, "data", [b"old"], limit=100)
        self.paused = self.ref
        if operation in WITH_PAUSED:
            self.paused = provider.pause(provider.ensure(new_spec()).ref, lambda _ref: None)

    def do(self, operation: str, provider: ModalProvider) -> object:
        return OPERATIONS[operation](provider, self.spec, self.ref, self.paused)


@pytest.fixture
def fleet(patient: ModalProvider, operation: str) -> Fleet:
    return Fleet(patient, operation)


def _all_at_once(fleets: Mapping[str, Fleet], provider: ModalProvider) -> dict[str, type[Exception] | None]:
    """What each operation ends in. They wait side by side, each in a fleet of its own."""

    def one(operation: str) -> type[Exception] | None:
        try:
            fleets[operation].do(operation, provider)
        except NexusError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(len(fleets)) as pool:
        return dict(zip(fleets, pool.map(one, fleets), strict=True))


@pytest.mark.parametrize("fault", LASTING)
def test_a_lasting_fault(
    cloud: ModalCloud,
    open_provider: Callable[..., ModalProvider],
    patient: ModalProvider,
    fault: Fault | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODAL_MAX_THROTTLE_WAIT", "0")
    # Where the server is silent only our own deadline ends it; where it answers, that must not come first.
    silent = fault in (Fault.SLOW, Fault.ANSWER_LOST, NO_SERVER)
    provider = open_provider(request_timeout=1.0 if silent else 2.5, create_timeout=2.0 if silent else 10.0)
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda operation: Fleet(patient, operation), OPERATIONS)
        fleets = dict(zip(OPERATIONS, made, strict=True))
    provider.ensure(new_spec())
    for operation, fleet in fleets.items():
        provider.inspect(fleet.ref)
        if operation == "run again":
            provider.run(fleet.ref, bash("true"))
    if isinstance(fault, Fault):
        cloud.plan.set(fault)
    else:
        cloud.stop()
    began = time.monotonic()
    ends = _all_at_once(fleets, provider)
    assert ends == {operation: error_of(fault, operation) for operation in OPERATIONS}
    assert time.monotonic() - began < 30, "every call has a deadline"
    assert not isinstance(fault, Fault) or cloud.plan.hits, "the fault was met"

    cloud.plan.clear()
    cloud.start()
    if fault is not Fault.ANSWER_LOST:
        # Nothing took effect, and above all nothing is taken to be gone.
        for operation, fleet in fleets.items():
            assert patient.inspect(fleet.ref).condition == "running"
            if operation in WITH_PAUSED:
                assert patient.inspect(fleet.paused).condition == "paused"
            assert patient.run(fleet.ref, bash("cat data; cat ran 2>/dev/null")).stdout == b"old"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_refusal_for_being_too_fast_is_waited_out(
    cloud: ModalCloud, patient: ModalProvider, fleet: Fleet, operation: str
) -> None:
    cloud.plan.set(Fault.THROTTLED_ONCE)
    fleet.do(operation, patient)
    assert cloud.plan.hits.total() == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_lost_answer_is_healed_and_nothing_happens_twice(
    cloud: ModalCloud, patient: ModalProvider, fleet: Fleet, operation: str
) -> None:
    before = {record.id for record in cloud.running()}
    cloud.plan.set(Fault.ANSWER_LOST, times=1)
    fleet.do(operation, patient)
    assert cloud.plan.hits.total() == 1
    after = {record.id for record in cloud.running()}
    assert len(after - before) == (operation in ("ensure", "resume"))
    if operation.startswith("run"):
        assert patient.run(fleet.ref, bash("cat ran")).stdout == b"x"


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {"ensure", "find", "owned", "discard", "destroy"}))
def test_what_vanished_is_gone(cloud: ModalCloud, patient: ModalProvider, fleet: Fleet, operation: str) -> None:
    cloud.vanish(fleet.ref.data["modal_id"])
    if operation in WITH_PAUSED:
        cloud.forget_image(fleet.paused.data["image_id"])
    if operation.startswith("inspect"):
        seen = fleet.do(operation, patient)
        assert isinstance(seen, Observed)
        assert seen.condition == "gone"
    elif operation == "destroy paused":
        assert fleet.do(operation, patient) is False
    elif operation == "cancel":
        fleet.do(operation, patient)  # what is gone runs nothing
    else:
        with pytest.raises(ProviderGone):
            fleet.do(operation, patient)


@pytest.mark.parametrize("operation", ["find", "owned"])
def test_what_vanished_is_not_listed(cloud: ModalCloud, patient: ModalProvider, fleet: Fleet, operation: str) -> None:
    cloud.vanish(fleet.ref.data["modal_id"])
    assert fleet.do(operation, patient) == []


@pytest.mark.parametrize(("operation", "answer"), [("destroy", False), ("discard", 0)])
def test_ending_what_vanished_is_no_error(
    cloud: ModalCloud, patient: ModalProvider, fleet: Fleet, operation: str, answer: object
) -> None:
    assert VANISHED
    cloud.vanish(fleet.ref.data["modal_id"])
    assert fleet.do(operation, patient) == answer


# --- one call of several fails ---------------------------------------------------------------------------------------
STEPS: Mapping[tuple[str, str], type[NexusError]] = {
    ("ensure", "SandboxCreateV2"): ProviderOutcomeUnknown,
    ("find", "SandboxListV2"): ProviderUnavailable,
    ("find", "SandboxTagsGetV2"): ProviderUnavailable,
    ("run", "TaskExecStart"): ProviderOutcomeUnknown,
    ("run", "TaskExecStdioRead"): ProviderOutcomeUnknown,
    ("run", "TaskExecStdinWrite"): ProviderOutcomeUnknown,
    ("run", "TaskExecWait"): ProviderOutcomeUnknown,
    ("pause", "TaskExecStart"): ProviderUnavailable,
    ("pause", "TaskSnapshotFilesystem"): ProviderUnavailable,
    ("resume", "ImageFromId"): ProviderUnavailable,
    ("resume", "SandboxTerminateV2"): ProviderOutcomeUnknown,
    ("resume", "SandboxCreateV2"): ProviderOutcomeUnknown,
    ("destroy", "SandboxWaitV2"): ProviderOutcomeUnknown,
    ("destroy", "SandboxTerminateV2"): ProviderOutcomeUnknown,
    ("destroy paused", "ImageDelete"): ProviderOutcomeUnknown,
    ("read_file", "TaskExecStdioRead"): ProviderUnavailable,
    ("write_file", "TaskExecStdinWrite"): ProviderUnavailable,
}


@pytest.mark.parametrize("step", dict.fromkeys(step for _, step in STEPS))
def test_a_step_that_is_never_answered(
    cloud: ModalCloud,
    provider: ModalProvider,
    patient: ModalProvider,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "KILL_TIMEOUT", 2)
    monkeypatch.setattr(running, "KILL_TIMEOUT", 2)
    fleets = {operation: Fleet(patient, operation) for operation, suffering in STEPS if suffering == step}
    if step == "SandboxTerminateV2":
        fleets["resume"].paused = _paused_halfway(cloud, patient)
    for fleet in fleets.values():
        provider.inspect(fleet.ref)
    provider.ensure(new_spec())
    cloud.plan.set(Fault.SLOW, step)
    assert _all_at_once(fleets, provider) == {operation: STEPS[operation, step] for operation in fleets}
    assert cloud.plan.hits[step, Fault.SLOW] >= len(fleets)
    cloud.plan.clear()
    for fleet in fleets.values():
        assert patient.inspect(fleet.ref).condition == "running"


def _paused_halfway(cloud: ModalCloud, provider: ModalProvider) -> Ref:
    """A snapshot was taken and saved, but its sandbox could not be ended."""
    sandbox = provider.ensure(new_spec())
    cloud.plan.set(Fault.INTERNAL, "SandboxTerminateV2")
    paused = provider.pause(sandbox.ref, lambda _ref: None)
    cloud.plan.clear()
    assert provider.inspect(sandbox.ref).condition == "running"
    return paused
