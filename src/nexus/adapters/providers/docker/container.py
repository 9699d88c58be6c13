"""What a sandbox's container looks like: the engine's create request, as a pure function of the spec.

Everything that keeps the code inside is here. Nothing secret may come in: the request can be read back by anyone who
may use the engine, so environment values travel to the resident agent instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus.domain.provider import Limits, NetworkPolicy

HOME = "/home/sandbox"
"""Home and first working folder of user code; a memory file system, gone with the container."""
AGENT_FOLDER = "/run/nexus"
"""Where the agent's socket is, inside. User code has no way in."""

CODE_FOLDER = "/run/nexus-code"
"""Where the agent puts what it is given to run; user code can read its own there and change nothing."""

CAPABILITIES = ("SETUID", "SETGID", "KILL")
"""All that the agent keeps: to become the user of the code, and to end that user's processes. User code has none."""

MIB = 1024 * 1024
SHARED_MEMORY = 64 * MIB
ENGINE_PATHS = frozenset({"/proc", "/sys", "/dev", "/"})


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Everything that decides what a container is, apart from whose it is: equal blueprints make equal containers."""

    image: str
    command: tuple[str, ...]
    limits: Limits
    network: str
    """Network mode of the engine."""
    code_uid: int
    volumes: tuple[str, ...] = ()
    """Paths that the image declares as volumes: without a limit of their own, so each becomes a small tmpfs."""
    groups: tuple[str, ...] = ()
    """Groups of the agent beside its own."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the first process: legible to whoever may use the engine."""


def network_mode(policy: NetworkPolicy, network: str) -> str:
    return "none" if policy == "none" else network


def create_request(blueprint: Blueprint, labels: Mapping[str, str], folder: str | None) -> dict[str, Any]:
    """The body of POST /containers/create. `folder` is where the agent's folder is outside; None keeps it inside."""
    limits = blueprint.limits
    host: dict[str, Any] = {
        "NetworkMode": blueprint.network,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Tmpfs": _memory_files(blueprint, inside=folder is None),
        "ShmSize": min(SHARED_MEMORY, _disk(limits)),
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "IpcMode": "private",
        "GroupAdd": list(blueprint.groups),
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    }
    if limits.memory_mb is not None:
        host["Memory"] = host["MemorySwap"] = limits.memory_mb * MIB
    if limits.cpus is not None:
        host["NanoCpus"] = round(limits.cpus * 1e9)
    if limits.processes is not None:
        host["PidsLimit"] = limits.processes
    if folder is not None:
        # A mount rather than a bind: where the engine does not see the folder it has to say so, not to make one.
        host["Mounts"] = [{"Type": "bind", "Source": folder, "Target": AGENT_FOLDER}]
    return {
        "Image": blueprint.image,
        "Entrypoint": list(blueprint.command),
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "Labels": dict(labels),
        "Env": [f"{name}={value}" for name, value in blueprint.env.items()],
        "OpenStdin": False,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "HostConfig": host,
    }


def _disk(limits: Limits) -> int:
    return (limits.disk_mb or 1024) * MIB


def _memory_files(blueprint: Blueprint, *, inside: bool) -> dict[str, str]:
    """The writable places: they share the allowance for files, three quarters of it for home."""
    allowance = _disk(blueprint.limits)
    uid = blueprint.code_uid
    files = {
        HOME: f"rw,exec,nosuid,nodev,mode=0700,uid={uid},gid={uid},size={allowance * 3 // 4}",
        "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={allowance // 4}",  # noqa: S108 - the guest's
    }
    files[CODE_FOLDER] = "rw,noexec,nosuid,nodev,mode=0711,nr_inodes=4096,size=128m"
    if inside:
        files[AGENT_FOLDER] = "rw,noexec,nosuid,nodev,mode=0700,size=1m"
    for path in blueprint.volumes:
        if path not in files and path not in ENGINE_PATHS:
            files[path] = f"rw,exec,nosuid,nodev,mode=0700,uid={uid},gid={uid},size={min(allowance, 16 * MIB)}"
    return files
