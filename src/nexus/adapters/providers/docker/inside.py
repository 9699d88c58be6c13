"""What goes on inside a container, whichever way it is reached, and where its handle comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.containers import Seen
from nexus.domain.errors import ProviderInvalidRequest, ProviderUnsupported
from nexus.domain.provider import ExecutionResult, OutputSink, Ref, RunRequest

PROVIDER = "docker"
REF_VERSION = 1


class NotSetUp(Exception):
    """What is inside runs, but was not set up since it started."""


class Inside(Protocol):
    """One container's inside: the resident agent, or plain exec for an image without Python.

    Methods raise NotSetUp when it was restarted, ProviderGone and ProviderNotRunning when it cannot answer.
    """

    def configured(self) -> bool:
        """Whether it was set up since it started."""
        ...

    def configure(self, env: Mapping[str, str], expires_at: datetime | None) -> tuple[str, ...]:
        """Wait until it is up and set it up; a second time changes nothing. What could not be enforced, in words."""
        ...

    def run(self, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult: ...

    def cancel(self, execution_id: str) -> None: ...

    def extend(self, expires_at: datetime) -> None: ...

    def time_left(self) -> float | None: ...

    def read_file(self, path: str, limit: int) -> Iterator[bytes]: ...

    def write_file(self, path: str, chunks: Iterable[bytes], limit: int) -> int: ...

    def close(self) -> None: ...


def _sandbox_id(seen: Seen) -> str:
    """A member of the warm pool has no sandbox yet: its own id stands for one. No sandbox has the last kind."""
    if seen.owner is not None and (seen.owner.sandbox_id or seen.owner.member_id):
        return seen.owner.sandbox_id or seen.owner.member_id
    return f"sb_{seen.container_id[:32]}"


@dataclass(frozen=True, slots=True)
class Handle:
    """What a ref says: enough to reach the inside without asking the engine."""

    container_id: str
    sandbox_id: str
    generation: int
    engine_id: str
    """Another engine does not know the container, which proves nothing."""
    mode: str
    folder: str
    uid: int

    @classmethod
    def of(cls, seen: Seen, engine_id: str) -> Handle:
        """The same for one container whether it was listed or looked at: refs are compared."""
        owner, labels = seen.owner, seen.labels
        return cls(
            container_id=seen.container_id,
            sandbox_id=_sandbox_id(seen),
            generation=owner.generation if owner else 1,
            engine_id=engine_id,
            mode=labels.get(naming.LABEL_MODE, ""),
            folder=labels.get(naming.LABEL_FOLDER, ""),
            uid=int(labels.get(naming.LABEL_UID) or 0),
        )

    @classmethod
    def from_ref(cls, ref: Ref) -> Handle:
        """Raises ProviderInvalidRequest for a ref that this provider did not make, or not this version of it."""
        if ref.provider != PROVIDER or ref.version != REF_VERSION:
            raise ProviderInvalidRequest(f"A ref of {ref.provider} version {ref.version} is not one of docker's")
        data = ref.data
        try:
            return cls(
                container_id=data["container"],
                sandbox_id=data["sandbox_id"],
                generation=int(data["generation"]),
                engine_id=data["engine"],
                mode=data["mode"],
                folder=data["folder"],
                uid=int(data["uid"]),
            )
        except (KeyError, ValueError):
            raise ProviderInvalidRequest("The ref lacks what docker's refs hold") from None

    @property
    def ref(self) -> Ref:
        return Ref(
            provider=PROVIDER,
            version=REF_VERSION,
            data={
                "container": self.container_id,
                "sandbox_id": self.sandbox_id,
                "generation": str(self.generation),
                "engine": self.engine_id,
                "mode": self.mode,
                "folder": self.folder,
                "uid": str(self.uid),
            },
        )


def check_request(request: RunRequest, languages: Sequence[str]) -> None:
    """Refuse what no run can be."""
    if (request.code is None) == (request.argv is None):
        raise ProviderInvalidRequest("A run is either code or a command line")
    if request.argv is not None and not request.argv:
        raise ProviderInvalidRequest("A command line has at least one word")
    if request.code is not None and request.language not in languages:
        known = ", ".join(languages)
        raise ProviderUnsupported(f"Unknown language {request.language!r}: docker runs {known}")


def first_fetched(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, with the first one fetched: what is wrong with a file shows at the call."""
    first = next(chunks, None)
    if first is None:
        return iter(())

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from chunks

    return all_of_them()
