"""Outward network for a sandbox through slirp4netns, without the host's loopback and link-local addresses."""

from __future__ import annotations

import functools
import os
import select
import shutil

RESOLVER = "10.0.2.3"
UNREACHABLE = ("169.254.0.0/16",)
"""Networks that routing rules inside the sandbox take away; the host's loopback is taken away by slirp4netns itself."""
_READY_SECONDS = 5.0


@functools.cache
def program() -> str | None:
    """slirp4netns, if this host has it and this user can make a tap device."""
    found = shutil.which("slirp4netns")
    return found if found and os.access("/dev/net/tun", os.R_OK | os.W_OK) else None


def command(pid: int, ready: int, leave: int) -> list[str]:
    """Serve the network of process `pid`: writes to `ready` when it works, ends when `leave` is closed."""
    found = program()
    assert found is not None
    return [
        found, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
        f"--ready-fd={ready}", f"--exit-fd={leave}", str(pid), "tap0",
    ]  # fmt: skip


def wait_until_ready(descriptor: int) -> bool:
    """Whether it said so; False when it ended instead or took too long."""
    readable, _, _ = select.select([descriptor], [], [], _READY_SECONDS)
    return bool(readable) and os.read(descriptor, 16) != b""


def files(online: bool) -> dict[str, str]:
    """/etc files for the guest's name resolution."""
    return {
        "/etc/resolv.conf": f"nameserver {RESOLVER}\n" if online else "",
        "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    }
