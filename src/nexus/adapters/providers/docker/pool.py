"""The warm pool on an engine: containers that wait, set up as sandboxes and renamed when they are taken.

Which sandbox gets which member is decided by the log before anything is asked of here. A container's name says what
it is: one that bears its member's name is a member, one that was renamed is a sandbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.agent import AgentInside
from nexus.adapters.providers.docker.containers import Containers, NameInUse
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.inside import Handle
from nexus.adapters.providers.docker.making import Maker, clear_folder
from nexus.adapters.providers.docker.reach import NO_SECRETS, Reach
from nexus.domain.errors import ProviderError, ProviderGone, ProviderInvalidRequest, ProviderNotRunning
from nexus.domain.provider import Condition, Limits, NetworkPolicy, Observed, Ref, SandboxSpec, Template
from nexus.domain.warm_pool import Kind, MemberSpec, Pooled

_ANYBODY: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Members:
    """The members of the warm pool, as far as they are containers."""

    def __init__(self, engine: Engine, containers: Containers, maker: Maker, reach: Reach) -> None:
        self._engine = engine
        self._containers = containers
        self._maker = maker
        self._reach = reach

    def kind(self, template: Template, limits: Limits, network: NetworkPolicy) -> Kind | None:
        digest = self._maker.kind(_spec("", "", template, limits, network, _ANYBODY))
        return Kind(self._engine.identity, digest) if digest else None

    def prepare(self, spec: MemberSpec) -> Ref:
        wanted = _spec("", spec.installation, spec.template, spec.limits, spec.network, spec.expires_at)
        name = naming.member_name(spec.installation, spec.member_id)
        lifetime = max(spec.expires_at - datetime.now(UTC), timedelta())
        seen = self._maker.make_member(
            wanted, name, spec.member_id, lifetime, lambda made: self._agent(self._reach.handle(made)).await_birth()
        )
        return self._reach.handle(seen).ref

    def adopt(self, spec: SandboxSpec, ref: Ref) -> Observed:
        handle = Handle.from_ref(ref)
        env = {**spec.template.env, **spec.env}
        with self._reach.proving_absence(handle):
            # The log gives a member to one sandbox only: one that is set up already was so by an earlier try of this.
            self._agent(handle).claim(env, spec.expires_at)
            if handle.folder and not env:
                (Path(handle.folder) / NO_SECRETS).touch()
            return self._renamed(handle, naming.container_name(spec.installation, spec.sandbox_id, spec.generation))

    def _renamed(self, handle: Handle, name: str) -> Observed:
        refused: ProviderError | None = None
        try:
            self._containers.rename(handle.container_id, name)
        except (NameInUse, ProviderInvalidRequest) as error:  # the latter: it bears that name already
            refused = error if isinstance(error, ProviderError) else None
        seen = self._containers.look(handle.container_id)
        if seen is None or seen.ended:
            raise ProviderGone("The member of the pool is gone")
        if seen.name != name:
            raise refused or ProviderInvalidRequest(f"Another container has the name {name}")
        if seen.status != "running":
            raise ProviderNotRunning(f"The member of the pool is {seen.status}")
        return self._reach.observed(seen)

    def pooled(self, installation: str) -> Sequence[Pooled]:
        found = []
        for seen in self._containers.listing(installation):
            if seen.owner is None or not seen.owner.member_id or seen.status == "removing":
                continue
            condition: Condition = "paused" if seen.status == "paused" else "running"
            if seen.ended or seen.status == "created":
                condition = "gone"
            found.append(Pooled(seen.owner.member_id, condition, seen.created_at))
        return found

    def withdraw(self, member_id: str, installation: str) -> bool:
        """By its name as a member, to which one that became a sandbox in this very moment does not answer."""
        removed = self._containers.remove(naming.member_name(installation, member_id))
        for seen in () if removed else self._containers.listing(installation):
            if seen.owner is not None and seen.owner.member_id == member_id:  # somebody renamed it by hand
                removed = self._maker.remove(seen.container_id, seen.labels)
        for folder in self._maker.folders(naming.folder_name(installation, member_id)):
            if not self._is_used(installation, folder):
                clear_folder(str(folder))
        return removed

    def _is_used(self, installation: str, folder: Path) -> bool:
        """A member that became a sandbox took its folder along."""
        used = (seen.labels.get(naming.LABEL_FOLDER) for seen in self._containers.listing(installation))
        return str(folder) in used

    def _agent(self, handle: Handle) -> AgentInside:
        inside = self._reach.inside(handle)
        if not isinstance(inside, AgentInside):
            raise ProviderInvalidRequest("A member of the pool has an agent")
        return inside


def _spec(
    sandbox_id: str,
    installation: str,
    template: Template,
    limits: Limits,
    network: NetworkPolicy,
    expires_at: datetime,
) -> SandboxSpec:
    """As much of a sandbox as its container is made from."""
    return SandboxSpec(
        sandbox_id=sandbox_id,
        generation=0,
        installation=installation,
        name="",
        template=template,
        expires_at=expires_at,
        limits=limits,
        network=network,
    )
