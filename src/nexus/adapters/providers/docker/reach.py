"""Between the engine and the inside of its containers: handles, connections, and what is proven when one fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.agent import AgentInside
from nexus.adapters.providers.docker.bare import Bare
from nexus.adapters.providers.docker.containers import Containers, Seen
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.inside import Handle, Inside, NotSetUp
from nexus.domain.errors import ProviderGone, ProviderNotRunning, ProviderUnavailable
from nexus.domain.provider import Condition, Observed

T = TypeVar("T")

NO_SECRETS: Final = "no-secrets"
"""A file in the folder of a member of the warm pool whose sandbox was given no values: a label cannot say so any
more."""


def had_no_secrets(folder: str) -> bool:
    """Whether a member that was taken was set up without values that a restart would lose."""
    return bool(folder) and (Path(folder) / NO_SECRETS).exists()


class Reach:
    """The containers of one engine, as far as this process has to do with them."""

    def __init__(self, engine: Engine, containers: Containers) -> None:
        self._engine = engine
        self._containers = containers
        self._insides: dict[str, Inside] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Drop all connections."""
        with self._lock:
            insides, self._insides = list(self._insides.values()), {}
        for inside in insides:
            inside.close()

    def within(self, handle: Handle, operation: Callable[[Inside], T]) -> T:
        """Do it inside. Raises ProviderGone and ProviderNotRunning only as the engine confirms."""
        inside = self.inside(handle)
        with self.proving_absence(handle):
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
    def proving_absence(self, handle: Handle) -> Iterator[None]:
        """Make sure that what is said to be gone was looked for on its own engine, and say what is not running."""
        try:
            yield
        except ProviderGone:
            self.forget(handle.container_id)
            self.require_same_engine(handle)
            raise
        except ProviderNotRunning:
            self.state(handle)
            raise

    def state(self, handle: Handle) -> str:
        """running, paused …; raises ProviderGone when it is neither nor will be."""
        seen = self._containers.look_settled(handle.container_id)
        if seen is None:
            self.require_same_engine(handle)
            raise ProviderGone("The sandbox's container does not exist any more")
        if seen.ended:
            raise ProviderGone(f"The sandbox is gone: {seen.end_note}")
        return seen.status

    def require_same_engine(self, handle: Handle) -> None:
        """Another engine knows nothing of the container: that is no proof that it is gone."""
        if handle.engine_id != self._engine.identity:
            raise ProviderUnavailable(
                f"The sandbox lives on another Docker Engine than {self._engine.url}",
                hint="Set DOCKER_HOST or the docker context to the engine that it was created on.",
            )

    def handle(self, seen: Seen) -> Handle:
        """The handle by which this container is remembered."""
        return Handle.of(seen, self._engine.identity)

    def inside(self, handle: Handle) -> Inside:
        """The inside of a container, the same for all threads of this process."""
        with self._lock:
            inside = self._insides.get(handle.container_id)
            if inside is None:
                inside = self._insides[handle.container_id] = self._make_inside(handle)
            return inside

    def _make_inside(self, handle: Handle) -> Inside:
        if handle.mode == "bare":
            return Bare(self._engine, handle.container_id, handle.uid)
        return AgentInside(self._engine, handle.container_id, handle.folder, lambda: self.state(handle))

    def forget(self, container_id: str) -> None:
        """Let go of connections to what is gone."""
        with self._lock:
            inside = self._insides.pop(container_id, None)
        if inside is not None:
            inside.close()

    def observed(self, seen: Seen) -> Observed:
        """The container in the port's words."""
        handle = self.handle(seen)
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
