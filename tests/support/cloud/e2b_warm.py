"""Sandboxes that have had their first run: what is kept from the second on is kept by the fork server."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import Observed, Ref, RunRequest, SandboxSpec
from tests.support.cloud.common import Machine
from tests.support.cloud.e2b import E2BCloud

SERVER = "nexus fork server"
READY = 3
"""The server, the next keeper, and what will be its command."""


def servers(machine: Machine) -> list[int]:
    """The host's pids of the fork server and of what it keeps ready: each the parent of the next."""
    found = {pid for pid, line in machine.processes().items() if line.startswith(SERVER)}
    parents = {}
    for pid in found:
        with contextlib.suppress(OSError):
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    child = {parent: pid for pid, parent in parents.items()}
    line = [pid for pid, parent in parents.items() if parent not in parents]
    while line and (next_one := child.get(line[-1])) is not None:
        line.append(next_one)
    return line


def until_ready(machine: Machine, *, other_than: int | None = None) -> int:
    """Wait for a fork server that can take a run, and return its pid on the host."""
    deadline = time.monotonic() + 20
    while len(found := servers(machine)) != READY or found[0] == other_than:
        assert time.monotonic() < deadline, machine.processes()
        time.sleep(0.01)
    return found[0]


def machine_of(cloud: E2BCloud, ref: Ref) -> Machine:
    return cloud.world.sandboxes[ref.data["id"]].machine


def warm_up(provider: E2BProvider, cloud: E2BCloud, ref: Ref) -> int:
    """Have a first run, and return the pid of the fork server that it leaves behind."""
    provider.run(ref, RunRequest(f"ex_{uuid.uuid4().hex}", 20, language="bash", code=b":"))
    return until_ready(machine_of(cloud, ref))


class WarmProvider(E2BProvider):
    """Gives out no new sandbox but a warm one."""

    cloud: E2BCloud

    def ensure(self, spec: SandboxSpec) -> Observed:
        before = set(self.cloud.world.sandboxes)
        seen = super().ensure(spec)
        if seen.ref.data["id"] not in before:
            warm_up(self, self.cloud, seen.ref)
        return seen
