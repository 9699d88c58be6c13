"""`DockerProvider`: the provider port over a Docker Engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.containers import Containers, Seen
from nexus.adapters.providers.docker.diagnosis import diagnose
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.inside import PROVIDER, Handle, check_request, first_fetched
from nexus.adapters.providers.docker.making import Maker, clear_folder, default_folder
from nexus.adapters.providers.docker.pool import Members
from nexus.adapters.providers.docker.reach import Reach
from nexus.domain.errors import ProviderGone
from nexus.domain.provider import (
    Capabilities,
    ExecutionResult,
    Finding,
    Limits,
    NetworkPolicy,
    Observed,
    OutputSink,
    Ref,
    RunRequest,
    SandboxSpec,
    Template,
)
from nexus.domain.warm_pool import Kind, MemberSpec, Pooled

DEFAULT_NETWORK: Final = "bridge"
CAPABILITIES: Final = Capabilities(
    pause="memory",
    native_ttl=True,
    limits=("memory_mb", "cpus", "processes", "disk_mb"),
    sessions=("python",),
)


class DockerProvider:
    """One sandbox is one container. Thread-safe; a fork gets connections of its own.

    The container's name is the lock and the proof of whose it is, its first process is the resident agent, and its
    files lie in memory: a container that ended is gone for good, whoever starts it again.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        image: str = "",
        network: str = "",
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is contacted yet.

        `base_url` is as in DOCKER_HOST; empty: DOCKER_HOST, the docker context, the engine's default place. `image`
        is the default template's, `network` the engine's network for sandboxes that may use one. `folder` is where
        the agents' sockets are, private to this user.
        """
        self._engine = Engine(base_url, env)
        self._containers = Containers(self._engine)
        self._reach = Reach(self._engine, self._containers)
        self._image = image
        self._network = network or DEFAULT_NETWORK
        self._maker = Maker(
            self._engine,
            self._containers,
            image=image,
            network=self._network,
            folder=folder or default_folder(),
        )
        self._members = Members(self._engine, self._containers, self._maker, self._reach)

    @classmethod
    def from_settings(cls, settings: Any) -> DockerProvider:
        """The provider as configured. Raises ConfigurationError at the first call that needs what is not installed."""
        return cls(
            settings.docker_host,
            image=settings.docker_image,
            network=getattr(settings, "docker_network", ""),
            folder=Path(settings.data_dir) / "docker",
        )

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def url(self) -> str:
        """Where the engine is, as in DOCKER_HOST."""
        return self._engine.url

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    # --- lifecycle -------------------------------------------------------------------------------------------------
    def ensure(self, spec: SandboxSpec) -> Observed:
        env = {**spec.template.env, **spec.env}
        notes: list[str] = []

        def set_up(seen: Seen) -> None:
            """Make it usable. One that is paused or was restarted is adopted as it is: it was set up once."""
            if seen.status == "running" and not seen.restarted:
                notes[:] = self._reach.inside(self._reach.handle(seen)).configure(env, spec.expires_at)

        observed = self._reach.observed(self._maker.make(spec, set_up))
        return replace(observed, notes=(*observed.notes, *notes))

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        found = []
        for listed in self._containers.listing(installation, naming.name_filter(installation, sandbox_id)):
            seen = self._containers.look_settled(listed.container_id)
            if seen is not None and self._is_whole(seen):
                found.append(self._reach.observed(seen))
        return found

    def _is_whole(self, seen: Seen) -> bool:
        """Whether its making came to an end. Paused and restarted ones must have been whole once."""
        if seen.status in ("created", "removing") or seen.ended:
            return False
        if seen.status == "paused" or seen.restarted:
            return True
        return self._reach.inside(self._reach.handle(seen)).configured()

    def inspect(self, ref: Ref) -> Observed:
        handle = Handle.from_ref(ref)
        seen = self._containers.look_settled(handle.container_id)
        if seen is None:
            self._reach.require_same_engine(handle)
            clear_folder(handle.folder)
            return Observed(ref=ref, sandbox_id=handle.sandbox_id, condition="gone", generation=handle.generation)
        return self._reach.observed(seen)

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        handle = Handle.from_ref(ref)
        with self._reach.proving_absence(handle):
            self._containers.pause(handle.container_id)
        save(ref)
        return ref

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        handle = Handle.from_ref(ref)
        with self._reach.proving_absence(handle):
            self._containers.unpause(handle.container_id)
            seen = self._containers.look(handle.container_id)
        if seen is None or seen.ended:
            raise ProviderGone("The sandbox is gone" if seen is None else f"The sandbox is gone: {seen.end_note}")
        self._extend(handle, spec.expires_at)
        return self._reach.observed(seen)

    def destroy(self, ref: Ref) -> bool:
        handle = Handle.from_ref(ref)
        removed = self._containers.remove(handle.container_id)
        if not removed:
            self._reach.require_same_engine(handle)
        clear_folder(handle.folder)
        self._reach.forget(handle.container_id)
        return removed

    def discard(self, sandbox_id: str, installation: str) -> int:
        count = 0
        for seen in self._containers.listing(installation, naming.name_filter(installation, sandbox_id)):
            count += self._maker.remove(seen.container_id, seen.labels)
            self._reach.forget(seen.container_id)
        for folder in self._maker.folders(naming.folder_name(installation, sandbox_id)):
            clear_folder(str(folder))  # of containers that somebody removed behind our back
        return count

    def owned(self, installation: str) -> Iterator[Observed]:
        for seen in self._containers.listing(installation):
            if seen.owner is not None and seen.owner.sandbox_id and seen.status != "removing":
                yield self._reach.observed(seen)

    # --- the warm pool ---------------------------------------------------------------------------------------------
    def kind(self, template: Template, limits: Limits, network: NetworkPolicy) -> Kind | None:
        return self._members.kind(template, limits, network)

    def prepare(self, spec: MemberSpec) -> Ref:
        return self._members.prepare(spec)

    def adopt(self, spec: SandboxSpec, ref: Ref) -> Observed:
        return self._members.adopt(spec, ref)

    def pooled(self, installation: str) -> Sequence[Pooled]:
        return self._members.pooled(installation)

    def withdraw(self, member_id: str, installation: str) -> bool:
        return self._members.withdraw(member_id, installation)

    # --- inside ----------------------------------------------------------------------------------------------------
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        handle = Handle.from_ref(ref)
        check_request(request, CAPABILITIES.languages)
        return self._reach.within(handle, lambda inside: inside.run(request, on_output))

    def cancel(self, ref: Ref, execution_id: str) -> None:
        handle = Handle.from_ref(ref)
        self._reach.within(handle, lambda inside: inside.cancel(execution_id))

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        self._extend(Handle.from_ref(ref), expires_at)

    def _extend(self, handle: Handle, expires_at: datetime) -> None:
        self._reach.within(handle, lambda inside: inside.extend(expires_at))

    def time_left(self, ref: Ref) -> float | None:
        """Seconds until the sandbox ends by itself; None when it does not."""
        return self._reach.within(Handle.from_ref(ref), lambda inside: inside.time_left())

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        handle = Handle.from_ref(ref)
        chunks = self._reach.within(handle, lambda inside: first_fetched(inside.read_file(path, limit)))
        yield from chunks

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        handle = Handle.from_ref(ref)
        return self._reach.within(handle, lambda inside: inside.write_file(path, chunks, limit))

    # --- the rest --------------------------------------------------------------------------------------------------
    def diagnose(self) -> Sequence[Finding]:
        return diagnose(self._engine, self._image, self._network)

    def close(self) -> None:
        self._reach.close()
        self._engine.close()
