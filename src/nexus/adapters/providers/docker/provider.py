"""`DockerProvider`: the provider port over a Docker Engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.agent import AgentInside
from nexus.adapters.providers.docker.bare import Bare
from nexus.adapters.providers.docker.containers import Containers, Seen
from nexus.adapters.providers.docker.diagnosis import diagnose
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.inside import PROVIDER, Handle, Inside, NotSetUp, check_request, first_fetched
from nexus.adapters.providers.docker.making import Maker, clear_folder, default_folder
from nexus.adapters.providers.docker.pool import Pool, Refilled, had_no_secrets
from nexus.domain.errors import (
    ProviderGone,
    ProviderNotRunning,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import (
    Capabilities,
    Condition,
    ExecutionResult,
    Finding,
    NetworkPolicy,
    Observed,
    OutputSink,
    Ref,
    RunRequest,
    SandboxSpec,
    Template,
)

T = TypeVar("T")
DEFAULT_NETWORK: Final = "bridge"
CAPABILITIES: Final = Capabilities(
    pause="memory",
    native_ttl=True,
    limits=("memory_mb", "cpus", "processes", "disk_mb"),
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
        pool_size: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is contacted yet.

        `base_url` is as in DOCKER_HOST; empty: DOCKER_HOST, the docker context, the engine's default place. `image`
        is the default template's, `network` the engine's network for sandboxes that may use one. `folder` is where
        the agents' sockets are, private to this user. With `pool_size` sandboxes come from the warm pool where it has
        any; `refill` fills it.
        """
        self._engine = Engine(base_url, env)
        self._containers = Containers(self._engine)
        self._image = image
        self._network = network or DEFAULT_NETWORK
        self._maker = Maker(
            self._engine,
            self._containers,
            image=image,
            network=self._network,
            folder=folder or default_folder(),
        )
        self._pool = Pool(self._containers, self._maker, self._member, pool_size) if pool_size > 0 else None
        self._insides: dict[str, Inside] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Any) -> DockerProvider:
        """The provider as configured. Raises ConfigurationError at the first call that needs what is not installed."""
        return cls(
            settings.docker_host,
            image=settings.docker_image,
            network=getattr(settings, "docker_network", ""),
            folder=Path(settings.data_dir) / "docker",
            pool_size=settings.docker_pool_size,
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
        if self._pool is not None and (taken := self._pool.take(spec, env)) is not None:
            return self._observed(taken)
        notes: list[str] = []

        def set_up(seen: Seen) -> None:
            """Make it usable. One that is paused or was restarted is adopted as it is: it was set up once."""
            if seen.status == "running" and not seen.restarted:
                notes[:] = self._inside(self._handle(seen)).configure(env, spec.expires_at)

        observed = self._observed(self._maker.make(spec, set_up))
        return replace(observed, notes=(*observed.notes, *notes))

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        found = []
        for listed in self._containers.listing(installation, naming.name_filter(installation, sandbox_id)):
            seen = self._containers.look_settled(listed.container_id)
            if seen is not None and self._is_whole(seen):
                found.append(self._observed(seen))
        return found

    def _is_whole(self, seen: Seen) -> bool:
        """Whether its making came to an end. Paused and restarted ones must have been whole once."""
        if seen.status in ("created", "removing") or seen.ended:
            return False
        if seen.status == "paused" or seen.restarted:
            return True
        return self._inside(self._handle(seen)).configured()

    def inspect(self, ref: Ref) -> Observed:
        handle = Handle.from_ref(ref)
        seen = self._containers.look_settled(handle.container_id)
        if seen is None:
            self._require_same_engine(handle)
            clear_folder(handle.folder)
            return Observed(ref=ref, sandbox_id=handle.sandbox_id, condition="gone", generation=handle.generation)
        return self._observed(seen)

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        handle = Handle.from_ref(ref)
        with self._proving_absence(handle):
            self._containers.pause(handle.container_id)
        save(ref)
        return ref

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        handle = Handle.from_ref(ref)
        with self._proving_absence(handle):
            self._containers.unpause(handle.container_id)
            seen = self._containers.look(handle.container_id)
        if seen is None or seen.ended:
            raise ProviderGone("The sandbox is gone" if seen is None else f"The sandbox is gone: {seen.end_note}")
        self._extend(handle, spec.expires_at)
        return self._observed(seen)

    def destroy(self, ref: Ref) -> bool:
        handle = Handle.from_ref(ref)
        removed = self._containers.remove(handle.container_id)
        if not removed:
            self._require_same_engine(handle)
        clear_folder(handle.folder)
        self._forget(handle.container_id)
        return removed

    def discard(self, sandbox_id: str, installation: str) -> int:
        count = 0
        for seen in self._containers.listing(installation, naming.name_filter(installation, sandbox_id)):
            count += self._maker.remove(seen.container_id, seen.labels)
            self._forget(seen.container_id)
        for folder in self._maker.folders(naming.folder_name(installation, sandbox_id)):
            clear_folder(str(folder))  # of containers that somebody removed behind our back
        return count

    def owned(self, installation: str) -> Iterator[Observed]:
        """As the port says. Members of the warm pool are not orphans, unless there is no pool any more."""
        for seen in self._containers.listing(installation):
            if seen.owner is None or seen.status == "removing":
                continue
            if not seen.owner.pool:
                yield self._observed(seen)
            elif self._pool is None:
                yield replace(self._observed(seen), notes=("left of a warm pool",))

    # --- the warm pool ---------------------------------------------------------------------------------------------
    def pooled(self, installation: str) -> Sequence[Observed]:
        """The members of the warm pool, whoever made them."""
        seen = self._containers.listing(installation)
        return [self._observed(each) for each in seen if each.owner is not None and each.owner.pool]

    def refill(
        self, installation: str, template: Template | None = None, *, network: NetworkPolicy = "full"
    ) -> Refilled:
        """Bring the pool for sandboxes of this template to its size; for a worker to call every now and then.

        Without a pool it removes what is left of one. Raises what `ensure` raises.
        """
        if self._pool is None:
            idle = Pool(self._containers, self._maker, self._member, 0)
            return Refilled(removed=idle.drain(installation))
        template = template or Template()
        spec = SandboxSpec(
            sandbox_id="",
            generation=0,
            installation=installation,
            name="",
            template=template,
            expires_at=datetime.now(UTC),
            limits=template.limits,
            network=network,
        )
        return self._pool.refill(spec)

    def _member(self, seen: Seen) -> AgentInside:
        inside = self._inside(self._handle(seen))
        if not isinstance(inside, AgentInside):
            raise ProviderUnsupported("A member of the pool has an agent")
        return inside

    # --- inside ----------------------------------------------------------------------------------------------------
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        handle = Handle.from_ref(ref)
        check_request(request, CAPABILITIES.languages)
        return self._in(handle, lambda inside: inside.run(request, on_output))

    def cancel(self, ref: Ref, execution_id: str) -> None:
        handle = Handle.from_ref(ref)
        self._in(handle, lambda inside: inside.cancel(execution_id))

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        self._extend(Handle.from_ref(ref), expires_at)

    def _extend(self, handle: Handle, expires_at: datetime) -> None:
        self._in(handle, lambda inside: inside.extend(expires_at))

    def time_left(self, ref: Ref) -> float | None:
        """Seconds until the sandbox ends by itself; None when it does not."""
        return self._in(Handle.from_ref(ref), lambda inside: inside.time_left())

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        handle = Handle.from_ref(ref)
        chunks = self._in(handle, lambda inside: first_fetched(inside.read_file(path, limit)))
        yield from chunks

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        handle = Handle.from_ref(ref)
        return self._in(handle, lambda inside: inside.write_file(path, chunks, limit))

    # --- the rest --------------------------------------------------------------------------------------------------
    def diagnose(self) -> Sequence[Finding]:
        return diagnose(self._engine, self._image, self._network)

    def close(self) -> None:
        with self._lock:
            insides, self._insides = list(self._insides.values()), {}
        for inside in insides:
            inside.close()
        self._engine.close()

    # --- between the engine and the inside -------------------------------------------------------------------------
    def _in(self, handle: Handle, operation: Callable[[Inside], T]) -> T:
        inside = self._inside(handle)
        with self._proving_absence(handle):
            try:
                return operation(inside)
            except NotSetUp:
                self._set_up_again(handle, inside)
                return operation(inside)

    def _set_up_again(self, handle: Handle, inside: Inside) -> None:
        """Someone restarted the container: its files are gone, and values handed in are known to nobody any more."""
        seen = self._containers.look(handle.container_id)
        if seen is None:
            raise ProviderGone("The sandbox is gone")
        if not seen.restarted:
            raise ProviderUnavailable("The sandbox is still being made")
        if seen.labels.get(naming.LABEL_SECRETS, "") != "0" and not had_no_secrets(handle.folder):
            raise ProviderNotRunning(
                "The container was restarted behind Nexus's back: its environment variables are lost",
                hint="Stop the sandbox and create a new one.",
            )
        inside.configure({}, None)

    @contextlib.contextmanager
    def _proving_absence(self, handle: Handle) -> Iterator[None]:
        """Make sure that what is said to be gone was looked for on its own engine, and say what is not running."""
        try:
            yield
        except ProviderGone:
            self._forget(handle.container_id)
            self._require_same_engine(handle)
            raise
        except ProviderNotRunning:
            self._state(handle)
            raise

    def _state(self, handle: Handle) -> str:
        """running, paused …; raises ProviderGone when it is neither nor will be."""
        seen = self._containers.look_settled(handle.container_id)
        if seen is None:
            self._require_same_engine(handle)
            raise ProviderGone("The sandbox's container does not exist any more")
        if seen.ended:
            raise ProviderGone(f"The sandbox is gone: {seen.end_note}")
        return seen.status

    def _require_same_engine(self, handle: Handle) -> None:
        """Another engine knows nothing of the container: that is no proof that it is gone."""
        if handle.engine_id != self._engine.identity:
            raise ProviderUnavailable(
                f"The sandbox lives on another Docker Engine than {self._engine.url}",
                hint="Set DOCKER_HOST or the docker context to the engine that it was created on.",
            )

    def _handle(self, seen: Seen) -> Handle:
        return Handle.of(seen, self._engine.identity)

    def _inside(self, handle: Handle) -> Inside:
        with self._lock:
            inside = self._insides.get(handle.container_id)
            if inside is None:
                inside = self._insides[handle.container_id] = self._make_inside(handle)
            return inside

    def _make_inside(self, handle: Handle) -> Inside:
        if handle.mode == "bare":
            return Bare(self._engine, handle.container_id, handle.uid)
        return AgentInside(self._engine, handle.container_id, handle.folder, lambda: self._state(handle))

    def _forget(self, container_id: str) -> None:
        with self._lock:
            inside = self._insides.pop(container_id, None)
        if inside is not None:
            inside.close()

    def _observed(self, seen: Seen) -> Observed:
        handle = self._handle(seen)
        notes = []
        condition: Condition = "running"
        if seen.ended or seen.status == "created":
            condition = "gone"
            notes.append(seen.end_note)
        elif seen.status == "paused":
            condition = "paused"
        elif seen.status == "restarting":
            raise ProviderUnavailable("The container is being restarted")
        if seen.restarted:
            notes.append("the container was restarted: its files and environment variables are lost")
        return Observed(
            ref=handle.ref,
            sandbox_id=handle.sandbox_id,
            condition=condition,
            generation=handle.generation,
            incarnation=seen.started,
            created_at=seen.created_at,
            notes=tuple(notes),
        )
