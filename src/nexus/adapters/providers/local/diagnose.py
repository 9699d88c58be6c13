"""What `nexus doctor` says of the local provider."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nexus.adapters.providers.local import bwrap, cgroups, interpreters, network
from nexus.domain.errors import ConfigurationError
from nexus.domain.provider import Finding


def enforced_limits() -> tuple[str, ...]:
    """The `Limits` fields that hold here: for the sandbox as a whole with control groups, for each process without."""
    found = ["memory_mb", "disk_mb"]
    parents = [str(path) for path in cgroups.parents()]
    grouped = {"pids": False, "cpu": False}
    for path in parents:
        version_2 = (Path(path) / "cgroup.subtree_control").exists()
        handed = (Path(path) / "cgroup.subtree_control").read_text().split() if version_2 else []
        for name in grouped:
            grouped[name] = grouped[name] or name in handed or f"/sys/fs/cgroup/{name}" in path
    if grouped["pids"] or os.getuid() != 0:
        found.append("processes")
    if grouped["cpu"]:
        found.append("cpus")
    return tuple(found)


def findings(state: Path, python: str) -> Sequence[Finding]:
    """Never raises."""
    return [_bubblewrap(), *_namespaces(), _python(python), *_languages(), _network(), _limits(), _state(state)]


def _bubblewrap() -> Finding:
    found = bwrap.program()
    if found is None:
        return Finding("bubblewrap", False, "not installed", "apt-get install bubblewrap")
    return Finding("bubblewrap", True, found)


def _namespaces() -> list[Finding]:
    found = bwrap.program()
    if found is None:
        return []
    pid = os.posix_spawn(
        found,
        [found, "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        {"PATH": os.environ.get("PATH", os.defpath)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ],
    )
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return [Finding("user namespaces", True, "can be made")]
    hint = "Allow them: sysctl kernel.unprivileged_userns_clone=1, or on Ubuntu an AppArmor profile for bwrap."
    return [Finding("user namespaces", False, "bubblewrap cannot make its namespaces here", hint)]


def _python(python: str) -> Finding:
    try:
        return Finding("python", True, interpreters.interpreter(python).path)
    except ConfigurationError as error:
        return Finding("python", False, str(error), error.hint)


def _languages() -> list[Finding]:
    result = []
    for language, found in (("javascript", interpreters.node()), ("bash", interpreters.bash())):
        if found is None:
            hint = interpreters.install_hint(language)
            result.append(Finding(language, False, "no interpreter found", hint, required=False))
        else:
            result.append(Finding(language, True, found.path, required=False))
    return result


def _network() -> Finding:
    found = network.program()
    if found is None:
        hint = "apt-get install slirp4netns; /dev/net/tun must be usable"
        return Finding("network", False, "sandboxes have no network here", hint, required=False)
    return Finding("network", True, f"outward through {found}", required=False)


def _limits() -> Finding:
    held = enforced_limits()
    missing = [name for name in ("memory_mb", "cpus", "processes", "disk_mb") if name not in held]
    if missing:
        hint = "Run as root, or have control groups delegated (systemd-run --user --scope -p Delegate=yes)."
        return Finding("limits", False, f"cannot be enforced here: {', '.join(missing)}", hint, required=False)
    return Finding("limits", True, ", ".join(held), required=False)


def _state(state: Path) -> Finding:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state):
            pass
    except OSError as error:
        return Finding("state folder", False, f"{state}: {error.strerror}", "Choose another with NEXUS_DATA_DIR.")
    return Finding("state folder", True, str(state))
