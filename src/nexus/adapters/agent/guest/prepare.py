"""Furnishing a bubblewrap sandbox from within, before anything of the user's runs: files, writable space, network.

Done here rather than by bubblewrap because it knows neither inode limits nor routing rules.
"""

from __future__ import annotations

import os

from nexus.adapters.agent.guest import kernel, routing

_DRAFT = "/mnt"
_MS_REC = 16384


def furnish(config: dict[str, object]) -> None:
    """Lay out the sandbox as `config` says; raises OSError for what the kernel refuses."""
    files = config.get("files")
    if isinstance(files, dict):
        for path, content in files.items():
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
    _writable_space(config)
    unreachable = config.get("unreachable")
    if isinstance(unreachable, list):
        resolver = str(config.get("resolver", ""))
        routing.shut_off([str(x) for x in unreachable], [resolver] if resolver else [])
    limit = config.get("user_namespace_limit")
    if isinstance(limit, int):
        _limit_user_namespaces(limit)
    for path in ("/dev", "/"):
        kernel.make_read_only(path)


def _writable_space(config: dict[str, object]) -> None:
    """One size- and inode-limited file system for all that the user can write, so that the limit is one number."""
    size, home = config["disk_bytes"], str(config["home"])
    uid, gid = config["owner"], config["owner_group"]
    assert isinstance(size, int)
    assert isinstance(uid, int)
    assert isinstance(gid, int)
    options = f"size={size},nr_inodes={max(1024, size // 8192)},mode=0755"
    kernel.mount("tmpfs", _DRAFT, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for name, target, mode in (("home", home, 0o755), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)):
        source = _DRAFT + "/" + name
        os.mkdir(source)
        os.chmod(source, mode)
        os.chown(source, uid, gid)
        _keep(config, source, target)
        kernel.mount(source, target, "", kernel.MS_BIND | _MS_REC)
    kernel.unmount(_DRAFT)
    code = str(config["code_dir"])
    kernel.mount("tmpfs", code, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=128m,nr_inodes=4096,mode=0711")


def _keep(config: dict[str, object], source: str, target: str) -> None:
    """An interpreter that lives below what is about to be covered is carried along."""
    kept = config.get("kept")
    for tree in kept if isinstance(kept, list) else ():
        if str(tree).startswith(target + "/"):
            place = source + str(tree)[len(target) :]
            os.makedirs(place, 0o755)
            kernel.mount(str(tree), place, "", kernel.MS_BIND | _MS_REC)


def _limit_user_namespaces(limit: int) -> None:
    """User code cannot make user namespaces even where the system call filter does not exist.

    bubblewrap's /proc has its settings read-only, so another one goes on top; every run mounts its own anyway.
    """
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write(str(limit))
