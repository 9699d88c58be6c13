"""bubblewrap: where it is, and what it is told."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePath

from nexus.adapters.agent.bundle import LOCAL_COMMAND, local_arguments
from nexus.adapters.providers.local.interpreters import Interpreter, system_binds

HOME = "/home/user"
CODE_DIR = "/run/nexus"
_ETC_BOUND = ("ld.so.cache", "alternatives", "ssl", "pki")
_ETC_COPIED = (
    "ca-certificates.conf", "debian_version", "ld.so.conf", "localtime", "mime.types", "nsswitch.conf", "os-release",
    "protocols", "services", "timezone",
)  # fmt: skip
"""What programs need of /etc and what tells nothing of the host's users and services. Every mount that a sandbox has
makes every run in it slower, hence the copies."""
_LARGEST_COPY = 256 * 1024
_EMPTY = ("/mnt", "/tmp", HOME, CODE_DIR, "/var/tmp", "/etc/nexus")  # noqa: S108


@functools.cache
def program() -> str | None:
    """The bwrap binary, if it is installed."""
    return shutil.which("bwrap")


@functools.cache
def copied_files() -> dict[str, bytes]:
    """Files of the host's /etc as they are to be inside."""
    found = {}
    for name in _ETC_COPIED:
        path = Path("/etc") / name
        try:
            if path.stat().st_size <= _LARGEST_COPY:
                found[str(path)] = path.read_bytes()
        except OSError:
            continue
    return found


def command(python: Interpreter, others: Iterable[Interpreter], *, info: int, block: int, birth: int) -> list[str]:
    """The command that becomes the sandbox's agent, after its maps were written and something was sent to `block`.

    As uid 0 of a user namespace: it can confine the user's code further, and has no right over the host whatever the
    host's uid is.
    """
    found = program()
    assert found is not None
    arguments = [
        found,
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--as-pid-1", "--hostname", "sandbox",
        "--userns-block-fd", str(block), "--info-fd", str(info),
        *system_binds(),
    ]  # fmt: skip
    for tree in sorted({*python.trees, *(tree for other in others for tree in other.trees)}):
        for parent in reversed(PurePath(tree).parents[:-1]):  # which bubblewrap would make for itself alone
            arguments += ["--perms", "0755", "--dir", str(parent)]
        arguments += ["--ro-bind", tree, tree]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for folder in _EMPTY:
        arguments += ["--dir", folder]
    for name in _ETC_BOUND:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    arguments += [
        "--clearenv",
        "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", HOME, "--setenv", "PYTHONDONTWRITEBYTECODE", "1",
        "--chdir", "/", "--",
        python.path, "-c", LOCAL_COMMAND, *local_arguments(birth),
    ]  # fmt: skip
    return arguments
