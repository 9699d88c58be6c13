"""What a sandbox's container looks like: the engine's create request, as a pure function of the spec.

Everything that keeps the code inside is here. Nothing secret may come in: the request can be read back by anyone who
may use the engine, so environment values travel to the resident agent instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus.domain.provider import Limits, NetworkPolicy

HOME = "/home/user"
"""Home and first working folder of user code; a memory file system, gone with the container."""
ENVIRONMENT: Final[Mapping[str, str]] = {
    "HOME": HOME,
    "USER": "user",
    "LOGNAME": "user",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""What every run finds in its environment, beside what the image sets and the sandbox was given."""
AGENT_FOLDER = "/run/nexus"
"""Where the agent's socket is, inside. User code has no way in."""
SOCKET = "agent.sock"
PROGRAM = "agent"
"""The agent itself, in the same folder, where that lies outside."""

CODE_FOLDER = "/run/nexus-code"
"""Where the agent puts what it is given to run; user code can read its own there and change nothing."""

CAPABILITIES = ("SETUID", "SETGID", "KILL")
"""All that the agent keeps: to become the user of the code, and to end that user's processes. User code has none."""
NETWORK_CAPABILITY = "NET_ADMIN"
"""What the agent has at its start besides, where there is a network: it shuts off what follows, and gives it up."""
UNREACHABLE = ("169.254.0.0/16",)
"""Link-local: where clouds hand out a machine's credentials. The container's own network, with the host as its gateway
and other sandboxes in it, is shut off as well."""

MIB = 1024 * 1024
SHARED_MEMORY = 64 * MIB
AGENT_MEMORY = 32 * MIB
"""What the agent itself may need when the code has taken all that it may."""
SYSCTLS: Final[Mapping[str, str]] = {
    # What outlives its processes would stay for the container's life: none of it, or little.
    "kernel.shm_rmid_forced": "1",
    "kernel.msgmni": "32",
    "kernel.sem": "250 4096 100 64",
}
VOLUME = 16 * MIB
"""Space in each place that the image declares as a volume."""
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
    has_agent: bool = True
    volumes: tuple[str, ...] = ()
    """Paths that the image declares as volumes: without a limit of their own, so each becomes a small tmpfs."""
    groups: tuple[str, ...] = ()
    """Groups of the agent beside its own."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment of the first process: legible to whoever may use the engine."""

    @property
    def has_network(self) -> bool:
        """Whether there is a network, and an agent that closes parts of it."""
        return self.has_agent and self.network != "none"


def network_mode(policy: NetworkPolicy, network: str) -> str:
    return "none" if policy == "none" else network


def create_request(blueprint: Blueprint, labels: Mapping[str, str], folder: str | None) -> dict[str, Any]:
    """The body of POST /containers/create. `folder` is where the agent's folder is outside; None keeps it inside."""
    limits = blueprint.limits
    host: dict[str, Any] = {
        "NetworkMode": blueprint.network,
        "CapDrop": ["ALL"],
        "CapAdd": [*CAPABILITIES, *([NETWORK_CAPABILITY] if blueprint.has_network else [])],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Tmpfs": _memory_files(blueprint, inside=folder is None),
        "ShmSize": _shared_memory(limits),
        "Sysctls": dict(SYSCTLS),
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "IpcMode": "private",
        "GroupAdd": list(blueprint.groups),
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    }
    if limits.memory_mb is not None:
        # Files live in memory and count as such: a full disk must not starve the programs.
        files = _disk(limits) + _shared_memory(limits) + len(blueprint.volumes) * VOLUME
        host["Memory"] = host["MemorySwap"] = limits.memory_mb * MIB + files + AGENT_MEMORY
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
    return (limits.disk_mb or limits.memory_mb or 1024) * MIB


def _shared_memory(limits: Limits) -> int:
    return min(SHARED_MEMORY, _disk(limits) // 4)


def agent_limits(limits: Limits) -> dict[str, int]:
    """What the agent enforces for each process, beside what the engine does for all together."""
    each = {"file_bytes": _disk(limits)}
    if limits.memory_mb is not None:
        each["data_bytes"] = limits.memory_mb * MIB
    return each


def _memory_files(blueprint: Blueprint, *, inside: bool) -> dict[str, str]:
    """The writable places: they share the allowance for files, three quarters of it for home."""
    allowance, uid = _disk(blueprint.limits), blueprint.code_uid
    own = f"mode=0700,uid={uid},gid={uid}"
    files = {
        HOME: _memory_file(own, allowance * 3 // 4),
        "/tmp": _memory_file("mode=1777", allowance // 4),  # noqa: S108 - the guest's
        CODE_FOLDER: _memory_file("noexec,mode=0711", 128 * MIB),
    }
    if inside:
        files[AGENT_FOLDER] = _memory_file("noexec,mode=0700", MIB)
    for path in blueprint.volumes:
        if path not in files and path not in ENGINE_PATHS:
            files[path] = _memory_file(own, VOLUME)
    return files


def _memory_file(options: str, size: int) -> str:
    executable = "" if "noexec" in options else "exec,"  # the engine's default is not to
    return f"rw,{executable}nosuid,nodev,{options},size={size},nr_inodes={max(1024, size // 8192)}"
