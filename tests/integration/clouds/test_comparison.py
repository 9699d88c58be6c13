"""What `docs/guides/providers.md` says of the clouds is true of the SDKs that are installed."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import e2b
import modal
from modal_proto import api_pb2

from nexus.adapters.providers.e2b import CAPABILITIES as E2B
from nexus.adapters.providers.modal import CAPABILITIES as MODAL
from nexus.adapters.providers.modal.provider import MONTH

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "providers.md"


def test_the_versions_named_are_those_installed() -> None:
    text = " ".join(GUIDE.read_text().split())
    for package in ("e2b", "modal"):
        minor = ".".join(version(package).split(".")[:2])
        assert f"`{package}` {minor}" in text


def test_e2b_pauses_with_memory_under_the_same_id_and_its_deadline_can_be_moved() -> None:
    assert (E2B.pause, E2B.ref_survives_pause, E2B.lists_paused, E2B.native_ttl) == ("memory", True, True, True)
    assert "memory" in (e2b.Sandbox.pause.__doc__ or "")
    assert e2b.SandboxState("paused")  # a state that lists can be asked for
    assert "timeout" in inspect.signature(e2b.Sandbox.set_timeout).parameters


def test_modals_pause_is_a_snapshot_of_files_and_its_deadline_cannot_be_moved() -> None:
    assert (MODAL.pause, MODAL.ref_survives_pause, MODAL.native_ttl, MODAL.gpu) == ("filesystem", False, False, True)
    assert inspect.signature(modal.Sandbox.snapshot_filesystem).parameters["ttl"].default == MONTH
    calls = [method.name for method in api_pb2.DESCRIPTOR.services_by_name["ModalClient"].methods]
    of_sandboxes = [name for name in calls if name.startswith("Sandbox")]
    assert "SandboxCreateV2" in of_sandboxes
    assert not [name for name in of_sandboxes if "Extend" in name or "Timeout" in name or "Deadline" in name]
    assert "gpu" in inspect.signature(modal.Sandbox.create).parameters
    assert {"cpu", "memory", "block_network", "idle_timeout"} <= set(inspect.signature(modal.Sandbox.create).parameters)


def test_no_gpu_can_be_asked_of_e2b() -> None:
    assert not E2B.gpu
    assert not any("gpu" in name for name in inspect.signature(e2b.Sandbox.create).parameters)
