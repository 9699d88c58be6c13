"""What `nexus doctor` says of Docker: whether it can be used, and what it cannot enforce here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.images import DEFAULT_IMAGE, image_facts
from nexus.domain.errors import NexusError
from nexus.domain.provider import Finding


def diagnose(engine: Engine, image: str, network: str) -> Sequence[Finding]:
    """Never raises; stops at the first thing without which the rest cannot be asked."""
    try:
        with engine.translated("ask what it can do") as client:
            facts, version = client.info(), client.version()
    except NexusError as error:
        return [Finding("docker engine", False, error.message, error.hint)]
    except Exception as error:  # noqa: BLE001 - the doctor tells of everything
        return [Finding("docker engine", False, f"It could not be asked: {type(error).__name__}: {error}")]
    number = version.get("Version", "unknown")
    findings = [Finding("docker engine", True, f"version {number} at {engine.url}")]
    findings += _limits(facts)
    findings += _image(engine, image or DEFAULT_IMAGE)
    findings += _network(engine, network)
    return findings


def _limits(facts: Mapping[str, Any]) -> Iterator[Finding]:
    for key, what in (("MemoryLimit", "memory"), ("CpuCfsQuota", "processor"), ("PidsLimit", "process")):
        if not facts.get(key, True):
            yield Finding(
                f"docker {what} limit",
                False,
                f"this engine cannot limit {what} use: a sandbox can take all there is",
                "Use an engine whose kernel has the cgroup controllers.",
                required=False,
            )
    options = " ".join(str(option) for option in facts.get("SecurityOptions") or ())
    if "seccomp" not in options:
        yield Finding(
            "docker seccomp",
            False,
            "the engine runs containers without a system call filter; the agent's own one stays",
            "Use an engine with seccomp.",
            required=False,
        )


def _image(engine: Engine, image: str) -> Iterator[Finding]:
    try:
        image_facts(engine, image)
    except NexusError as error:
        yield Finding("docker image", False, error.message, error.hint)
    else:
        yield Finding("docker image", True, image)


def _network(engine: Engine, network: str) -> Iterator[Finding]:
    try:
        with engine.translated("look at the network") as client:
            client.inspect_network(network)
    except NexusError as error:
        yield Finding("docker network", False, error.message, f"Run: docker network create {network}")
    else:
        yield Finding("docker network", True, network)
