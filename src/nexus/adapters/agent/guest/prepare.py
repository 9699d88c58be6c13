"""Furnishing a bubblewrap sandbox from within, once, before anything of the user's runs: files, writable space, network rules.

Done here rather than by bubblewrap because it knows neither inode limits nor routing rules.
"""

from __future__ import annotations

import _socket
import os
import struct

from nexus.adapters.agent.guest import kernel

_DRAFT = "/mnt"
_RTM_NEWRULE, _ACK_CREATE_EXCL_REQUEST = 32, 0x605
_FRA_DST, _FRA_PRIORITY, _FRA_PROTOCOL, _FRA_DPORT = 1, 6, 22, 24
_TO_TABLE, _UNREACHABLE = 1, 7
_MAIN_TABLE = 254


def furnish(config: dict[str, object]) -> None:
    """Lay out the sandbox as `config` says; raises OSError for what the kernel refuses."""
    files = config.get("files")
    if isinstance(files, dict):
        for path, text in files.items():
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    _writable_space(config)
    unreachable = config.get("unreachable")
    if isinstance(unreachable, list):
        _network_rules([str(x) for x in unreachable], str(config.get("resolver", "")))
    limit = config.get("user_namespace_limit")
    if isinstance(limit, int):
        _limit_user_namespaces(limit)
    for path in ("/dev", "/"):
        kernel.make_read_only(path)


def _writable_space(config: dict[str, object]) -> None:
    """One size- and inode-limited file system for all that the user can write, so that the limit is one number."""
    size, home = config["disk_bytes"], str(config["home"])
    uid, gid = config["owner"], config["owner_group"]
    assert isinstance(size, int) and isinstance(uid, int) and isinstance(gid, int)
    options = f"size={size},nr_inodes={max(1024, size // 8192)},mode=0755"
    kernel.mount("tmpfs", _DRAFT, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    for name, target, mode in (("home", home, 0o755), ("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)):
        source = _DRAFT + "/" + name
        os.mkdir(source)
        os.chmod(source, mode)
        os.chown(source, uid, gid)
        kernel.mount(source, target, "", kernel.MS_BIND)
    kernel.unmount(_DRAFT)
    code = str(config["code_dir"])
    kernel.mount("tmpfs", code, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=128m,nr_inodes=4096,mode=0711")


def _limit_user_namespaces(limit: int) -> None:
    """User code cannot make user namespaces even where the system call filter does not exist.

    bubblewrap's /proc has its settings read-only, so another one goes on top; every run mounts its own anyway.
    """
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write(str(limit))


def _network_rules(unreachable: list[str], resolver: str) -> None:
    """Make networks unreachable by routing rules, and of the resolver's address everything but DNS.

    The user-space network maps the resolver's address, on every port, to the host's resolver. Where that listens on the host's loopback,
    so would everything else on the loopback be within reach.
    """
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    try:
        priority = 100
        for protocol in (_socket.IPPROTO_UDP, _socket.IPPROTO_TCP):
            if resolver:
                _add_rule(channel, priority, resolver + "/32", _TO_TABLE, protocol, 53)
            priority += 1
        for network in ([resolver + "/32"] if resolver else []) + unreachable:
            _add_rule(channel, priority, network, _UNREACHABLE)
            priority += 1
    finally:
        channel.close()


def _add_rule(
    channel: _socket.socket, priority: int, network: str, action: int, protocol: int = 0, port: int = 0
) -> None:
    address, _, length = network.partition("/")
    attributes = _attribute(_FRA_DST, _socket.inet_aton(address)) + _attribute(
        _FRA_PRIORITY, struct.pack("=I", priority)
    )
    if protocol:
        attributes += _attribute(_FRA_PROTOCOL, struct.pack("=B", protocol))
        attributes += _attribute(_FRA_DPORT, struct.pack("=HH", port, port))
    table = _MAIN_TABLE if action == _TO_TABLE else 0
    rule = struct.pack("=BBBBBBBBI", _socket.AF_INET, int(length), 0, 0, table, 0, 0, action, 0)
    body = rule + attributes
    channel.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWRULE, _ACK_CREATE_EXCL_REQUEST, 1, 0) + body)
    answer = channel.recv(4096)
    (error,) = struct.unpack_from("=i", answer, 16)
    if error:
        raise OSError(-error, f"network rule for {network}: {os.strerror(-error)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
