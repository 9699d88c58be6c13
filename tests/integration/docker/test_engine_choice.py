"""Which engine is used, and what is said when it cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nexus import config
from nexus.adapters.providers.docker import DockerProvider
from nexus.adapters.providers.docker.engine import Engine as Connection
from nexus.domain.errors import ConfigurationError, ProviderInvalidRequest, ProviderUnavailable
from nexus.domain.provider import Template
from tests.integration.docker.conftest import Doorway, Lab
from tests.support.dockerd import Engine


def contexts(home: Path, **hosts: str) -> dict[str, str]:
    """A docker configuration with these contexts, the last of them the current one; the environment that names it."""
    for name, host in hosts.items():
        folder = home / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
        folder.mkdir(parents=True)
        meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
        (folder / "meta.json").write_text(json.dumps(meta))
        (home / "config.json").write_text(json.dumps({"currentContext": name}))
    return {"DOCKER_CONFIG": str(home)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker configuration folder of the test's own; the SDK finds it by the environment."""
    folder = tmp_path / "docker-config"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_an_address_goes_before_the_environment_and_that_before_a_context(home: Path) -> None:
    env = contexts(home, mine="unix:///context.sock")
    assert Connection("tcp://given:1", {**env, "DOCKER_HOST": "tcp://env:1"}).url == "tcp://given:1"
    assert Connection("", {**env, "DOCKER_HOST": "tcp://env:1", "DOCKER_CONTEXT": "mine"}).url == "tcp://env:1"
    assert Connection("", env).url == "unix:///context.sock"
    assert Connection("", {"DOCKER_CONFIG": "/nonexistent"}).url == "unix:///var/run/docker.sock"


def test_the_environment_chooses_among_contexts(home: Path) -> None:
    env = contexts(home, first="unix:///first.sock", second="unix:///second.sock")
    assert Connection("", env).url == "unix:///second.sock"
    assert Connection("", {**env, "DOCKER_CONTEXT": "first"}).url == "unix:///first.sock"
    assert Connection("", {**env, "DOCKER_CONTEXT": "default"}).url == "unix:///var/run/docker.sock"
    with pytest.raises(ConfigurationError, match="no docker context third"):
        _ = Connection("", {**env, "DOCKER_CONTEXT": "third"}).url


def test_a_sandbox_by_way_of_a_context(
    home: Path, docker_engine: Engine, docker_image: str, folder: Path, lab: Lab
) -> None:
    contexts(home, private=docker_engine.host)
    provider = DockerProvider(image=docker_image, folder=folder)
    try:
        seen = provider.ensure(lab.spec())
        assert lab.provider.inspect(seen.ref).condition == "running"
    finally:
        provider.close()


def test_settings_lead_to_the_engine(docker_engine: Engine, docker_image: str, tmp_path: Path) -> None:
    settings = config.load(
        {"DOCKER_HOST": docker_engine.host, "NEXUS_DOCKER_IMAGE": docker_image, "NEXUS_DATA_DIR": str(tmp_path)}
    )
    provider = DockerProvider.from_settings(settings)
    assert provider.url == docker_engine.host
    assert [(finding.check, finding.ok) for finding in provider.diagnose()] == [
        ("docker engine", True),
        ("docker image", True),
        ("docker network", True),
    ]
    provider.close()


def nobody(tmp_path: Path) -> str:
    return f"unix://{tmp_path / 'nobody.sock'}"


def deaf(tmp_path: Path) -> str:
    """A socket file that nobody listens to any more."""
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    return f"unix://{path}"


def closed(_tmp_path: Path) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("where", [nobody, deaf, closed])
def test_without_an_engine_it_says_what_to_do(where: Any, tmp_path: Path, lab: Lab) -> None:
    url = where(tmp_path)
    provider = DockerProvider(url, folder=tmp_path / "agents")
    with pytest.raises(ProviderUnavailable) as caught:
        provider.ensure(lab.spec())
    assert url in caught.value.message
    assert "DOCKER_HOST" in caught.value.hint
    (finding,) = provider.diagnose()
    assert (finding.ok, bool(finding.hint)) == (False, True)
    provider.close()


def test_without_the_sdk_it_says_what_to_install(tmp_path: Path, lab: Lab) -> None:
    provider = DockerProvider("unix:///nonexistent", folder=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name, package=None: None)
        with pytest.raises(ConfigurationError) as caught:
            provider.ensure(lab.spec())
        (finding,) = provider.diagnose()
    assert "pip install 'nexus-sandbox[docker]'" in caught.value.hint
    assert "pip install" in finding.hint


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("nexus-sandbox:default", "nexus template build default"),
        ("nexus-sandbox:data", "nexus template build data"),
        ("ghcr.io/someone/tool:3", "docker pull ghcr.io/someone/tool:3"),
    ],
)
def test_without_the_image_it_says_what_to_run(lab: Lab, image: str, command: str) -> None:
    with pytest.raises(ProviderInvalidRequest) as caught:
        lab.sandbox(template=Template(image=image))
    assert image in caught.value.message
    assert command in caught.value.hint


def test_a_network_that_is_not_there(docker_engine: Engine, docker_image: str, folder: Path, lab: Lab) -> None:
    provider = DockerProvider(docker_engine.host, image=docker_image, network="no-such-network", folder=folder)
    with pytest.raises(ProviderInvalidRequest, match="no-such-network"):
        provider.ensure(lab.spec())
    assert any("docker network create no-such-network" in finding.hint for finding in provider.diagnose())
    provider.close()


def test_an_engine_that_says_nothing_is_not_waited_for_for_ever(
    remote_lab: Lab, remote_engine: Doorway, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = remote_lab.sandbox()
    monkeypatch.setattr("nexus.adapters.providers.docker.engine.ANSWER_SECONDS", 1)
    provider = DockerProvider(remote_engine.host, image="any")
    remote_engine.hanging = True
    with pytest.raises(ProviderUnavailable):
        provider.inspect(seen.ref)
    provider.close()


def test_nothing_of_the_sdk_is_loaded_for_a_run_by_socket(lab: Lab) -> None:
    """A command line call that runs code does not wait for the SDK's import, which takes longer than the run."""
    seen = lab.sandbox()
    program = (
        "import json, sys\n"
        "from nexus.adapters.providers.docker import DockerProvider\n"
        "from nexus.domain.provider import Ref, RunRequest\n"
        "provider = DockerProvider()\n"
        "ref = Ref.from_json(json.loads(sys.argv[1]))\n"
        "print(provider.run(ref, RunRequest('ex_lean', 10, 'bash', b'echo lean')).stdout.decode(), end='')\n"
        "print(sorted({'docker', 'requests', 'urllib3'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(seen.ref.to_json())]
    env = {**os.environ, "DOCKER_HOST": "unix:///nonexistent.sock", "PYTHONPATH": "src"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert (done.stdout, done.stderr) == ("lean\n[]\n", "")
