"""Bringing one sandbox to life.

Whatever fails or is killed on the way leaves a folder without a record and nothing that runs: the agent ends itself
unless its creator, having recorded it, gives it the word to go.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from nexus.adapters.agent import bundle
from nexus.adapters.providers.local import bwrap, cgroups, interpreters, network, processes
from nexus.adapters.providers.local.folder import LOG, NETWORK, SOCKET, Folder, Record
from nexus.domain.errors import ProviderError
from nexus.domain.provider import SandboxSpec

USER = 1000
_FIRST_HOST_UID, _HOST_UIDS = 1_610_612_736, 1 << 28
"""Host uids of users inside, as root: the upper end of what systemd keeps for containers (524288 to 1879048191)."""
_START_SECONDS = 20.0
_AGENT_PROCESSES = 24
"""What is not the user's: the agent, its zygote, the waiting child, a waiting node with its dozen threads."""
_MIB = 1024 * 1024
_READY, _GO = b"R", b"G"
_SHELL = 'exec "$@" >/dev/null 2>>"$LOG" </dev/null &'
"""bubblewrap in the background, so that its parent is not a manager who would have to wait for it."""


@dataclass
class _Descriptors:
    """What is open during a launch; closed at its end, come what may."""

    stack: contextlib.ExitStack
    inherited: list[int] = field(default_factory=list)

    def keep(self, descriptor: int, *, inherit: bool = False) -> int:
        self.stack.callback(os.close, descriptor)
        if inherit:
            self.inherited.append(descriptor)
        return descriptor

    def pipe(self, *, inherit_read: bool = False, inherit_write: bool = False) -> tuple[int, int]:
        read, write = os.pipe()
        return self.keep(read, inherit=inherit_read), self.keep(write, inherit=inherit_write)


def launch(folder: Folder, spec: SandboxSpec, python: interpreters.Interpreter) -> Record:
    """Start the sandbox in its folder, which the caller guards and has emptied, and record it."""
    with contextlib.ExitStack() as stack:
        return _launch(folder, spec, python, _Descriptors(stack))


def _launch(folder: Folder, spec: SandboxSpec, python: interpreters.Interpreter, fds: _Descriptors) -> Record:
    root = os.getuid() == 0
    notes: list[str] = []
    lock = fds.keep(folder.lock_for_sandbox(), inherit=True)
    listener = fds.keep(_listen(folder), inherit=True)
    groups = cgroups.make(group_name(folder), spec.limits)
    # Both ends: bubblewrap, should its creator die, must not die of writing to nobody, for its child would wait for
    # it for ever.
    info_read, info_write = fds.pipe(inherit_read=True, inherit_write=True)
    block_read, block_write = fds.pipe(inherit_read=True)
    leave_read, leave_write = fds.pipe(inherit_write=True)
    mine, theirs = socket.socketpair()
    fds.stack.callback(mine.close)
    fds.keep(theirs.detach(), inherit=True)
    birth = fds.inherited[-1]
    oom = [fds.keep(x, inherit=True) for x in groups.open_oom_counters()]
    others = [x for x in (interpreters.node(), interpreters.bash()) if x is not None]
    command = bwrap.command(python, others, info=info_write, block=block_read, birth=birth)
    _spawn(command, fds.inherited, folder)
    for descriptor in (info_write, block_read, birth):
        os.dup2(
            info_read, descriptor
        )  # only the sandbox holds them now, so that its end is seen as the end of the stream
    told = _read_info(info_read, folder)
    pid = told["child-pid"]
    _write_maps(pid, folder.sandbox_id, root)
    os.write(block_write, b"1")
    # Moving it takes the kernel milliseconds, in which bubblewrap goes on. Nothing has been forked yet that could be
    # left outside.
    notes += _limit(groups, spec, pid, root)
    mine.settimeout(_START_SECONDS)
    _hear(mine, bundle.BORN, folder)
    online = spec.network == "full" and network.program() is not None
    ready = -1
    if online:
        # Not before bubblewrap has finished: both bring up the loopback device, and bubblewrap fails when it comes
        # second.
        ready, ready_write = fds.pipe()
        held = fds.keep(folder.lock_for_sandbox(NETWORK))
        _spawn(network.command(pid, ready_write, leave_read), [ready_write, leave_read, held], folder)
        os.dup2(ready, ready_write)
    config = _config(spec, python, others, root, online)
    config.update(lock=lock, listener=listener, network_exit=leave_write, oom=oom, spare=[info_read])
    mine.sendall(bundle.birth(config))
    _hear(mine, _READY, folder)
    if online and not network.wait_until_ready(ready):
        online = False
    if spec.network == "full" and not online:
        notes.append(_offline_note())
    record = Record(
        sandbox_id=folder.sandbox_id,
        generation=folder.generation,
        installation=folder.installation,
        created_at=datetime.now(UTC).isoformat(),
        boot=processes.boot_id(),
        pid=pid,
        started=processes.start_time(pid),
        namespace=told["pid-namespace"],
        cgroups=tuple(str(path) for path in groups.paths),
        notes=tuple(notes),
    )
    folder.write_record(record)
    mine.send(_GO)
    return record


def group_name(folder: Folder) -> str:
    """A control group's name: the same for every process, another for another state folder."""
    place = sha256(str(folder.path.resolve()).encode()).hexdigest()[:12]
    return f"nexus-{folder.sandbox_id}.{folder.generation}-{place}"


def _listen(folder: Folder) -> int:
    directory = os.open(folder.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # By way of the descriptor: the path itself may be longer than a socket address.
            listener.bind(f"/proc/self/fd/{directory}/{SOCKET}")
            listener.listen(128)
            return listener.detach()
    finally:
        os.close(directory)


def _spawn(command: list[str], inherited: list[int], folder: Folder) -> None:
    """Start a program that this process is not the parent of, with these descriptors and no others."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LOG": str(folder.path / LOG)}
    actions = [
        (os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited
    ]  # onto itself: clears close-on-exec, in the child alone
    shell = os.posix_spawn(
        "/bin/sh", ["sh", "-c", _SHELL, "sh", *command], environment, file_actions=actions, setsid=True
    )
    os.waitpid(shell, 0)


def _read_info(descriptor: int, folder: Folder) -> Mapping[str, int]:
    """bubblewrap's account of the process and namespaces that it made."""
    text = b""
    end = time.monotonic() + _START_SECONDS
    while b"}" not in text:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        part = os.read(descriptor, 4096) if readable else b""
        if not part:
            raise _failed("bubblewrap could not start the sandbox", folder)
        text += part
    told = json.loads(text)
    return {name: int(value) for name, value in told.items()}


def _write_maps(pid: int, sandbox_id: str, root: bool) -> None:
    """Who the sandbox's uids are on the host: its 0 is the caller; as root its user is a uid that nobody has."""
    user = _FIRST_HOST_UID + int(sha256(sandbox_id.encode()).hexdigest(), 16) % _HOST_UIDS
    for name, own in (("uid_map", os.getuid()), ("gid_map", os.getgid())):
        if name == "gid_map" and not root:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{name}", f"0 {own} 1\n" + (f"{USER} {user} 1\n" if root else ""))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _limit(groups: cgroups.Groups, spec: SandboxSpec, pid: int, root: bool) -> list[str]:
    """Put the sandbox into its groups; returns what to tell of limits that do not hold for it as a whole."""
    limits = spec.limits
    # Files live in memory and count as such: a full disk must not starve the programs.
    memory = None if limits.memory_mb is None else (limits.memory_mb + (limits.disk_mb or limits.memory_mb)) * _MIB
    processes_limit = None if limits.processes is None else limits.processes + _AGENT_PROCESSES
    missing = groups.limit(memory, processes_limit, limits.cpus)
    groups.add(pid)
    notes = []
    if "memory_mb" in missing:
        notes.append(
            "memory is limited for each process, not for the sandbox as a whole (no memory control group here)"
        )
    if "processes" in missing and root:
        notes.append("the number of processes is not limited (no pids control group here)")
    if "cpus" in missing:
        notes.append("CPU time is not limited (no cpu control group here)")
    return notes


def _config(
    spec: SandboxSpec,
    python: interpreters.Interpreter,
    others: list[interpreters.Interpreter],
    root: bool,
    online: bool,
) -> dict[str, object]:
    limits = spec.limits
    folders = [os.path.dirname(x.path) for x in (python, *others)]  # noqa: PTH120
    path = [*dict.fromkeys([*folders, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])]
    env = {
        "HOME": bwrap.HOME, "USER": "user", "LOGNAME": "user", "SHELL": "/bin/bash", "LANG": "C.UTF-8", "TERM": "dumb",
        "PATH": ":".join(path), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "NODE_PATH": f"{bwrap.HOME}/node_modules",
        **spec.template.env,
        **spec.env,
    }  # fmt: skip
    disk = (limits.disk_mb or limits.memory_mb or 1024) * _MIB
    config: dict[str, object] = {
        "env": env,
        "home": bwrap.HOME,
        "code_dir": bwrap.CODE_DIR,
        "kept": sorted({tree for each in (python, *others) for tree in each.trees}),
        "uid": USER,
        "gid": USER,
        "owner": USER if root else 0,
        "owner_group": USER if root else 0,
        "user_namespaces": not root,
        "pid_namespaces": True,
        "processes": 0 if root else (limits.processes or 0) + _AGENT_PROCESSES,
        "file_bytes": disk,
        "data_bytes": (limits.memory_mb or 0) * _MIB,
        "disk_bytes": disk,
        "ttl": max(0, int((spec.expires_at - datetime.now(UTC)).total_seconds() * 1000)),
        "files": {
            **bwrap.copied_files(),
            "/etc/passwd": f"root:x:0:0::/:/bin/sh\nuser:x:{USER}:{USER}::{bwrap.HOME}:/bin/bash\n",
            "/etc/group": f"root:x:0:\nuser:x:{USER}:\n",
            "/etc/hostname": "sandbox\n",
            **network.files(online),
        },
    }
    if online:
        config.update(unreachable=list(network.UNREACHABLE), resolver=network.RESOLVER)
    if root:
        config["user_namespace_limit"] = 0
    return config


def _hear(channel: socket.socket, expected: bytes, folder: Folder) -> None:
    """Wait for one word of the agent's."""
    try:
        answer = channel.recv(2048)
    except OSError as error:
        raise _failed(f"the sandbox's agent did not start ({error})", folder) from None
    if answer != expected:
        raise _failed(f"the sandbox's agent did not start: {answer.decode(errors='replace')}", folder)


def _offline_note() -> str:
    return (
        "no network: install slirp4netns (apt-get install slirp4netns) for outward access, and make /dev/net/tun usable"
    )


def _failed(what: str, folder: Folder) -> ProviderError:
    complaint = folder.complaints()
    return ProviderError(
        f"{what[0].upper()}{what[1:]}" + (f": {complaint}" if complaint else ""),
        hint="`nexus doctor` tells what this machine lacks.",
    )
