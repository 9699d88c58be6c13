"""What a run's processes are and are not allowed: identity, limits, mounts, descriptors, system calls."""

from __future__ import annotations

import fcntl
import os
import resource

from nexus.adapters.agent.guest import kernel
from nexus.adapters.agent.guest.kernel import signals

_DESCRIPTORS = 1024
"""No process of the agent's has descriptors beyond this one."""


class Rules:
    """How runs are confined; fixed when the agent starts."""

    def __init__(self, config: dict[str, object]) -> None:
        self.home = str(config.get("home", "/home/user"))
        self.code_dir = str(config["code_dir"])
        self.uid = _int(config, "uid", 1000)
        self.gid = _int(config, "gid", 1000)
        self.user_namespaces = bool(config.get("user_namespaces"))
        """Runs get their uid in a user namespace of their own: the agent has only one and cannot switch."""
        self.pid_namespaces = bool(config.get("pid_namespaces"))
        self.processes = _int(config, "processes", 0)
        self.nice = _int(config, "nice", 0)
        """How far programs stand back behind the agent, where the two share a processor with nobody else."""
        self.file_bytes = _int(config, "file_bytes", 0)
        self.data_bytes = _int(config, "data_bytes", 0)
        self.filter = kernel.system_call_filter(os.uname().machine) if config.get("filter", True) else None


def _int(config: dict[str, object], name: str, default: int) -> int:
    value = config.get(name, default)
    return value if isinstance(value, int) else default


def private_mounts(code_dir: str, shared_bytes: int) -> None:
    """A /proc of the run's own PID namespace, in mounts and System V objects that end with the run.

    Source files are made read-only here: without a uid of its own, the user's code would own them.
    """
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    if shared_bytes:
        _write_setting("/proc/sys/kernel/shmall", shared_bytes // resource.getpagesize())
    kernel.mount("/proc/sys", "/proc/sys", "", kernel.MS_BIND)
    kernel.make_read_only("/proc/sys")
    kernel.make_read_only(code_dir)


def _write_setting(path: str, value: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # before Linux 5.19 only the host's root may
        return
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def place(standard: list[int], extra: list[int]) -> None:
    """Put the descriptors at 0, 1, 2 (and 3, …) and close every other one."""
    wanted = [*standard, *extra]
    # All of them first out of the way of the targets.
    wanted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted)) for fd in wanted]
    for target, fd in enumerate(wanted):
        os.dup2(fd, target)
    os.closerange(len(wanted), _DESCRIPTORS)


def keep_only(descriptors: list[int]) -> None:
    """Close every other descriptor."""
    low = 0
    for fd in [*sorted(descriptors), _DESCRIPTORS]:
        if low < fd:  # CPython takes the empty range from 0 for everything
            os.closerange(low, fd)
        low = fd + 1


def become_user(rules: Rules) -> None:
    """Turn into the user, for good."""
    os.setsid()
    os.nice(rules.nice)
    kernel.set_dumpable(True)
    _oom_first()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 4096)
    if rules.file_bytes:
        _limit(resource.RLIMIT_FSIZE, rules.file_bytes)
    if rules.data_bytes:
        _limit(resource.RLIMIT_DATA, rules.data_bytes)
    if rules.processes:
        _limit(resource.RLIMIT_NPROC, rules.processes)
    if rules.user_namespaces:
        _own_namespace(rules)
    else:
        os.setgroups([])
        os.setresgid(rules.gid, rules.gid, rules.gid)
        os.setresuid(rules.uid, rules.uid, rules.uid)
    kernel.drop_capabilities()
    # Changing identity made the process undumpable: its own /proc/self would be closed to it.
    kernel.set_dumpable(True)
    if rules.filter is not None:
        kernel.install_filter(rules.filter)
    os.umask(0o022)


def enter(home: str, fresh: bool) -> None:
    """The last that is done before the program. `fresh`: it is another one, and gets the default signal actions."""
    try:
        os.chdir(home)
    except OSError:  # its owner may have closed it to himself
        os.chdir("/")
    if fresh:
        for number in (signals.SIGPIPE, signals.SIGXFSZ):  # which Python ignores, and what it starts would inherit
            signals.signal(number, signals.SIG_DFL)


def _own_namespace(rules: Rules) -> None:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.set_dumpable(True)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{rules.uid} {uid} 1"),
        ("gid_map", f"{rules.gid} {gid} 1"),
    ):
        descriptor = os.open("/proc/self/" + name, os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)
    os.setresgid(rules.gid, rules.gid, rules.gid)
    os.setresuid(rules.uid, rules.uid, rules.uid)


def _oom_first() -> None:
    """When memory runs out, a user's process goes, not the agent."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except OSError:
        return
    os.write(descriptor, b"1000")
    os.close(descriptor)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))
