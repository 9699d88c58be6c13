"""Containers of one installation on one engine: made, listed, looked at, paused and removed.

What the engine says becomes `Seen`, a value; nothing here knows what runs inside.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nexus.adapters.providers.docker.engine import Engine, status_of
from nexus.adapters.providers.docker.naming import LABEL_INSTALLATION, Owner, owner_of
from nexus.domain.errors import (
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderUnavailable,
)

NEVER = "0001-01-01"
RESTART_WINDOW = 10.0
"""Seconds after its end in which a container may be in the middle of somebody's `docker restart`; clocks may differ."""
RESTART_PATIENCE = 1.5
"""Seconds to wait for such a restart: an engine starts a container within a fraction of that."""


class NameInUse(Exception):
    """Another container has this name: whoever made it was first."""


class ImageMissing(Exception):
    """The engine does not have the image."""


class PlaceMissing(Exception):
    """The engine does not see the folder that was to be mounted: it does not share this machine's files."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One container as the engine reports it."""

    container_id: str
    name: str
    owner: Owner | None
    installation: str
    labels: Mapping[str, str]
    status: str
    """created, running, paused, restarting, removing, exited or dead."""
    created_at: datetime | None
    started: str = ""
    """When its processes started, in the engine's words; "" where the engine was not asked."""
    finished: datetime | None = None
    """When its processes ended, the last time that they did; None for never, and where the engine was not asked."""
    image_id: str = ""
    exit_code: int = 0
    out_of_memory: bool = False

    @property
    def ended(self) -> bool:
        """Nothing lives in it any more, and its files lay in memory."""
        return self.status in ("exited", "dead", "removing")

    @property
    def restarted(self) -> bool:
        """Its processes ended once and were started anew."""
        return self.finished is not None and not self.ended

    @property
    def ended_lately(self) -> bool:
        age = RESTART_WINDOW if self.finished is None else abs((datetime.now(UTC) - self.finished).total_seconds())
        return age < RESTART_WINDOW

    @property
    def end_note(self) -> str:
        if self.out_of_memory:
            return "the container ran out of memory and ended"
        return f"the container ended with code {self.exit_code}"


class Containers:
    """The engine's containers, as far as they carry Nexus's labels."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- making ----------------------------------------------------------------------------------------------------
    def create(self, name: str, request: Mapping[str, Any]) -> str:
        """Create without starting; the id. Raises NameInUse, ImageMissing, PlaceMissing."""
        import docker.errors

        with self._engine.translated(f"create container {name}", effect=True) as client:
            try:
                return str(client.create_container_from_config(dict(request), name)["Id"])
            except docker.errors.ImageNotFound:
                raise ImageMissing from None
            except docker.errors.APIError as error:
                if status_of(error) == 409:
                    raise NameInUse from None
                if status_of(error) == 404 and "no such image" in str(error).lower():
                    raise ImageMissing from None
                if "bind source path" in str(error) or "invalid mount" in str(error).lower():
                    raise PlaceMissing from None
                raise

    def start(self, container_id: str) -> None:
        """Start; one that runs is fine. Raises ProviderGone, or ProviderInvalidRequest when it cannot run at all.

        ProviderGone is also what somebody else is just removing.
        """
        import docker.errors

        with self._engine.translated("start container", effect=True) as client:
            try:
                client.start(container_id)
            except docker.errors.APIError as error:
                said = str(error.explanation or error)
                if status_of(error) == 409:
                    raise ProviderGone(f"The container is being removed: {said}") from error
                if status_of(error) == 404 and "network" in said and "not found" in said:
                    raise ProviderInvalidRequest(
                        f"The Docker Engine cannot start the sandbox: {said}",
                        hint="Create that network, or unset NEXUS_DOCKER_NETWORK.",
                    ) from error
                raise

    def rename(self, container_id: str, name: str) -> None:
        """Raises NameInUse, ProviderGone."""
        import docker.errors

        with self._engine.translated(f"rename container to {name}", effect=True) as client:
            try:
                client.rename(container_id, name)
            except docker.errors.APIError as error:
                if status_of(error) == 409:
                    raise NameInUse from None
                raise

    # --- looking ---------------------------------------------------------------------------------------------------
    def look(self, container: str) -> Seen | None:
        """The container with this id or name; None when there is none."""
        import docker.errors

        with self._engine.translated("inspect container") as client:
            try:
                return _from_inspect(client.inspect_container(container))
            except docker.errors.NotFound:
                return None

    def look_settled(self, container: str) -> Seen | None:
        """As `look`, but one that ended a moment ago is watched a little longer: `docker restart` ends it first."""
        patience = time.monotonic() + RESTART_PATIENCE
        while True:
            seen = self.look(container)
            if seen is None or not seen.ended or time.monotonic() > patience or not seen.ended_lately:
                return seen
            time.sleep(0.05)

    def listing(self, installation: str, name_pattern: str = "") -> Iterator[Seen]:
        """All containers of the installation, oldest first, without what only a closer look tells."""
        filters: dict[str, Any] = {"label": [f"{LABEL_INSTALLATION}={installation}"]}
        if name_pattern:
            filters["name"] = [name_pattern]
        with self._engine.translated("list containers") as client:
            found = [_from_listing(entry) for entry in client.containers(all=True, filters=filters)]
        found.sort(key=lambda seen: (seen.created_at or datetime.min.replace(tzinfo=UTC), seen.name))
        yield from found

    # --- pausing and ending ----------------------------------------------------------------------------------------
    def pause(self, container_id: str) -> None:
        """Freeze all processes; one that is paused is fine. Raises ProviderGone, ProviderNotRunning."""
        import docker.errors

        with self._engine.translated("pause container", effect=True) as client:
            try:
                client.pause(container_id)
            except docker.errors.APIError as error:
                if status_of(error) not in (409, 500):
                    raise
                self._settle(container_id, "paused", error)

    def unpause(self, container_id: str) -> None:
        """Thaw; one that runs is fine. Raises ProviderGone, ProviderNotRunning."""
        import docker.errors

        with self._engine.translated("resume container", effect=True) as client:
            try:
                client.unpause(container_id)
            except docker.errors.APIError as error:
                if status_of(error) not in (409, 500):
                    raise
                self._settle(container_id, "running", error)

    def _settle(self, container_id: str, wanted: str, error: Exception) -> None:
        """The engine refused: fine when it is already as wanted, otherwise say what it is."""
        seen = self.look(container_id)
        if seen is None:
            raise ProviderGone("The container does not exist any more") from error
        if seen.status == wanted:
            return
        if seen.ended:
            raise ProviderGone(f"The sandbox is gone: {seen.end_note}") from error
        if seen.status != "running" and wanted == "paused":
            raise ProviderNotRunning(f"The container is {seen.status}") from error
        raise ProviderUnavailable(f"The container could not become {wanted}: {error}") from error

    def remove(self, container_id: str) -> bool:
        """End it at once, with its volumes. False when it was not there."""
        import docker.errors

        with self._engine.translated("remove container", effect=True) as client:
            try:
                client.remove_container(container_id, force=True, v=True)
            except docker.errors.NotFound:
                return False
            except docker.errors.APIError as error:
                if status_of(error) == 409 and "already in progress" in str(error):
                    self._await_removal(container_id)
                    return False
                raise
        return True

    def _await_removal(self, container_id: str) -> None:
        """Somebody else removes it: when that is finished it is gone for us, too."""
        patience = time.monotonic() + 30
        while self.look(container_id) is not None:
            if time.monotonic() > patience:
                raise ProviderUnavailable("Somebody else is removing the container and does not get it done")
            time.sleep(0.02)


def _from_inspect(value: Mapping[str, Any]) -> Seen:
    state, labels = value["State"], value["Config"].get("Labels") or {}
    name = str(value["Name"]).lstrip("/")
    return Seen(
        container_id=str(value["Id"]),
        name=name,
        owner=owner_of(name, labels),
        installation=str(labels.get(LABEL_INSTALLATION, "")),
        labels=labels,
        status=str(state["Status"]),
        created_at=_moment(str(value.get("Created", ""))),
        started="" if str(state.get("StartedAt", NEVER)).startswith(NEVER) else str(state["StartedAt"]),
        finished=_moment(str(state.get("FinishedAt", ""))),
        image_id=str(value.get("Image", "")),
        exit_code=int(state.get("ExitCode", 0)),
        out_of_memory=bool(state.get("OOMKilled")),
    )


def _from_listing(value: Mapping[str, Any]) -> Seen:
    labels = value.get("Labels") or {}
    name = str((value.get("Names") or [""])[0]).lstrip("/")
    return Seen(
        container_id=str(value["Id"]),
        name=name,
        owner=owner_of(name, labels),
        installation=str(labels.get(LABEL_INSTALLATION, "")),
        labels=labels,
        status=str(value.get("State", "")),
        created_at=datetime.fromtimestamp(int(value["Created"]), UTC) if value.get("Created") else None,
    )


def _moment(text: str) -> datetime | None:
    """The engine writes nanoseconds, which Python does not read, and the year 1 for never."""
    if text.startswith(NEVER):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00")))
    except ValueError:
        return None
