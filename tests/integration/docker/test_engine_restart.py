"""The engine goes down and comes back, with and without its containers. Each test has an engine of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import docker
import pytest

from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.errors import ProviderUnavailable
from nexus.domain.provider import Observed, Ref
from nexus.testing.provider_contract.base import Listener
from tests.integration.docker.conftest import PATIENCE, Lab
from tests.support.dockerd import Engine, private_engine
from tests.support.dockerd_images import SMALL, base_image

Place = tuple[Engine, Lab]


@contextmanager
def _place(folder: Path, *arguments: str) -> Iterator[Place]:
    with ExitStack() as stack:
        engine = stack.enter_context(private_engine(*arguments))
        image = base_image(engine, SMALL)
        client = docker.APIClient(base_url=engine.host, version="auto")
        stack.callback(client.close)
        provider = DockerProvider(engine.host, image=image, folder=folder)
        stack.callback(provider.close)
        lab = Lab(provider, client)
        stack.callback(lab.clean)
        yield engine, lab


@pytest.fixture
def keeps_containers(folder: Path) -> Iterator[Place]:
    with _place(folder, "--live-restore") as place:
        yield place


def _is_down(lab: Lab, seen: Observed) -> None:
    """Every question that only the engine can answer is left open."""
    ref: Ref = seen.ref
    questions: list[Callable[[], object]] = [
        lambda: lab.provider.inspect(ref),
        lambda: lab.provider.destroy(ref),
        lambda: lab.provider.find(seen.sandbox_id, lab.installation),
        lambda: list(lab.provider.owned(lab.installation)),
        lambda: lab.provider.ensure(lab.spec()),
    ]
    for question in questions:
        with pytest.raises(ProviderUnavailable):
            question()
    assert [finding.ok for finding in lab.provider.diagnose()] == [False]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_with_live_restore_a_sandbox_does_not_notice(keeps_containers: Place, sig: signal.Signals) -> None:
    engine, lab = keeps_containers
    seen, paused = lab.sandbox(), lab.sandbox()
    lab.run(seen.ref, "echo kept > file")
    lab.provider.pause(paused.ref, lambda _ref: None)
    listener = Listener()
    with ThreadPoolExecutor() as pool:
        code = "echo up; until [ -e go ]; do sleep 0.02; done; echo through"
        run = pool.submit(lab.run, seen.ref, code, timeout=60, on_output=listener)
        assert listener.came.wait(PATIENCE)
        engine.stop_daemon(sig)
        _is_down(lab, seen)
        assert lab.run(seen.ref, "cat file; touch go").stdout == b"kept\n", "a run needs the agent, not the engine"
        assert run.result(PATIENCE).stdout == b"up\nthrough\n"
    engine.start_daemon()
    again = lab.provider.inspect(seen.ref)
    assert (again.condition, again.incarnation, again.ref) == ("running", seen.incarnation, seen.ref)
    assert lab.provider.inspect(paused.ref).condition == "paused"
    lab.provider.resume(lab.made[1], paused.ref)
    assert lab.run(paused.ref, "echo awake").stdout == b"awake\n"
    assert lab.provider.destroy(seen.ref)


def test_without_it_the_sandboxes_end_and_that_is_said(folder: Path) -> None:
    """And an engine that is given up, its containers with it, leaves nothing on the machine."""
    with _place(folder) as (engine, lab):
        seen = lab.sandbox()
        listener = Listener()
        with ThreadPoolExecutor() as pool:
            run = pool.submit(lab.run, seen.ref, "echo up; sleep 60", timeout=60, on_output=listener)
            assert listener.came.wait(PATIENCE)
            engine.stop_daemon()
            _is_down(lab, seen)
            assert run.exception(PATIENCE) is not None
        engine.start_daemon()
        assert lab.provider.inspect(seen.ref).condition == "gone"
        assert lab.provider.find(seen.sandbox_id, lab.installation) == []
        assert [each.condition for each in lab.provider.owned(lab.installation)] == ["gone"]
        assert lab.run(lab.sandbox().ref, "echo next").stdout == b"next\n"
        assert _traces(engine.root)
    assert _traces(engine.root) == []


def _traces(root: Path) -> list[str]:
    """Processes and control groups of an engine."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    processes = [line for line in listing.splitlines() if str(root) in line]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{Engine(root).cgroup}")]
    return processes + groups + [str(path) for path in [root] if path.exists()]
