"""Making a sandbox's container, or adopting the one that is there already: one container, however many try at once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from nexus.adapters.agent.bundle import UNFIT
from nexus.adapters.agent.guest.main import NO_PLACE
from nexus.adapters.providers.docker import bare, naming
from nexus.adapters.providers.docker.agent import FirstProcess, first_process
from nexus.adapters.providers.docker.container import PROGRAM, Blueprint, create_request, network_mode
from nexus.adapters.providers.docker.containers import Containers, ImageMissing, NameInUse, PlaceMissing, Seen
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.images import image_facts, image_missing, image_of
from nexus.domain.errors import (
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import SandboxSpec

PATIENCE_SECONDS: Final = 30.0
"""How long to try, while others make and remove containers of the same name."""
_FIRST_UID: Final = 20_000
_UIDS: Final = 40_000
"""User ids of code: above people's and services', within what a rootless engine has. Each container gets its own,
because the kernel counts some things per user: pipes, file watches, pending signals."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A container to be made: what it is, where its agent's folder is, and which labels tell so."""

    blueprint: Blueprint
    image_id: str
    folder: Path | None
    labels: Mapping[str, str]

    def request(self) -> dict[str, object]:
        return create_request(self.blueprint, self.labels, None if self.folder is None else str(self.folder))


class Maker:
    """Makes containers on one engine and remembers what it learned: which images lack Python, what the engine sees."""

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        *,
        image: str,
        network: str,
        folder: Path,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._image = image
        self._network = network
        self._folder = folder
        self._without_python: set[str] = set()
        self._shares_files: bool | None = None

    # --- planning --------------------------------------------------------------------------------------------------
    def plan(self, spec: SandboxSpec, folder_prefix: str, lifetime: timedelta | None = None) -> Plan:
        """Decide what the container of this spec is. Raises ProviderInvalidRequest when its image is missing.

        With `lifetime` it ends by itself after that, unless its set-up says otherwise.
        """
        image = image_of(spec.template, self._image)
        facts = image_facts(self._engine, image)
        uid, network = self._code_uid(), network_mode(spec.network, self._network)
        is_bare = facts.image_id in self._without_python
        folder = None if is_bare else self._make_folder(folder_prefix)
        if is_bare:
            first = FirstProcess(bare.first_command())
        else:
            first = first_process(uid, spec.limits, network, lifetime, has_folder=folder is not None)
        if folder is not None:
            (folder / PROGRAM).write_bytes(first.file)
            (folder / PROGRAM).chmod(0o640)
        blueprint = Blueprint(
            image=image,
            command=first.command,
            env=first.env,
            limits=spec.limits,
            network=network,
            code_uid=uid,
            has_agent=not is_bare,
            volumes=facts.volumes,
            groups=() if folder is None or os.geteuid() == 0 else (str(os.getegid()),),
        )
        labels = {
            naming.LABEL_INSTALLATION: spec.installation,
            naming.LABEL_MODE: "bare" if is_bare else "agent",
            naming.LABEL_FOLDER: "" if folder is None else str(folder),
            naming.LABEL_UID: str(uid),
        }
        return Plan(blueprint, facts.image_id, folder, labels)

    def kind(self, spec: SandboxSpec) -> str:
        """The same for specs whose containers are alike until they are set up; "" where they cannot wait for that."""
        facts = image_facts(self._engine, image_of(spec.template, self._image))
        if facts.image_id in self._without_python:
            return ""
        network = network_mode(spec.network, self._network)
        agent = first_process(_FIRST_UID, spec.limits, network, None, has_folder=True)
        told = json.dumps([facts.image_id, network, asdict(spec.limits)]).encode()
        return hashlib.sha256(told + agent.file).hexdigest()[:12]

    def _code_uid(self) -> int:
        """Never the group that opens the agent's folder."""
        while (uid := _FIRST_UID + random.randrange(_UIDS)) == os.getegid():
            pass
        return uid

    def _make_folder(self, name: str) -> Path | None:
        """A folder of its own for the agent's socket; None where the engine does not share this machine's files."""
        if self._shares_files is None:
            self._shares_files = self._engine.is_local
        if not self._shares_files:
            return None
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = self._folder / f"{name}-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o770)
        folder.chmod(0o770)  # whatever the umask: the agent gets in by the group
        return folder

    # --- making ----------------------------------------------------------------------------------------------------
    def make(self, spec: SandboxSpec, set_up: Callable[[Seen], None]) -> Seen:
        """A usable container for the spec: made, or adopted by its name. `set_up` is called on what runs."""
        name = naming.container_name(spec.installation, spec.sandbox_id, spec.generation)
        labels = {
            naming.LABEL_SANDBOX: spec.sandbox_id,
            naming.LABEL_GENERATION: str(spec.generation),
            naming.LABEL_SECRETS: str(len({**spec.template.env, **spec.env})),
        }
        folder = naming.folder_name(spec.installation, spec.sandbox_id)
        return self._make(name, spec, lambda: self.plan(spec, folder), labels, set_up)

    def make_member(
        self, spec: SandboxSpec, name: str, member_id: str, lifetime: timedelta, set_up: Callable[[Seen], None]
    ) -> Seen:
        """The same for a member of the warm pool, which ends by itself after `lifetime` if it is not set up.

        Raises ProviderUnsupported for an image without Python.
        """
        folder = naming.folder_name(spec.installation, member_id)

        def plan() -> Plan:
            planned = self.plan(spec, folder, lifetime)
            if not planned.blueprint.has_agent:
                raise ProviderUnsupported("An image without Python cannot be kept warm: there is no agent to wait")
            return planned

        return self._make(name, spec, plan, {naming.LABEL_MEMBER: member_id}, set_up)

    def _make(
        self,
        name: str,
        spec: SandboxSpec,
        planned: Callable[[], Plan],
        labels: Mapping[str, str],
        set_up: Callable[[Seen], None],
    ) -> Seen:
        begin, pause = time.monotonic(), 0.005
        while time.monotonic() - begin < PATIENCE_SECONDS:
            plan = planned()
            made = self.start_new(name, replace(plan, labels={**plan.labels, **labels}))
            seen = self._containers.look(made or name)
            if seen is not None and self._finish(seen, spec.installation, made, set_up):
                return seen
            time.sleep(pause)  # the name is free when whoever removes its container is done
            pause = min(pause * 2, 0.2)
        raise ProviderUnavailable(f"Others keep making and removing the container {name}")

    def _finish(self, seen: Seen, installation: str, made: str, set_up: Callable[[Seen], None]) -> bool:
        """Bring what is there to use. False: it is gone or had to go, so begin again."""
        if seen.installation != installation:
            raise ProviderInvalidRequest(f"A container named {seen.name} belongs to somebody else")
        if seen.status == "created":  # whoever made it is about to start it, or died before it could
            if self._start(seen.container_id, seen.labels, seen.image_id):
                again = self._containers.look(seen.container_id)
                return again is not None and self._finish(again, installation, made, set_up)
            return False
        if not seen.ended:
            try:
                set_up(seen)
            except ProviderGone:
                pass
            else:
                return True
        ended = self._containers.look(seen.container_id)
        if ended is None:
            return False
        if not ended.ended:
            raise ProviderUnavailable(f"The container {seen.name} is {ended.status}")
        self.remove(ended.container_id, ended.labels)  # nothing is left in it
        if ended.labels.get(naming.LABEL_MODE) == "agent" and self._learn(ended):
            return False
        if made:
            raise ProviderError(f"The sandbox ended as soon as it was started: {ended.end_note}")
        return False

    def _learn(self, ended: Seen) -> bool:
        """What an agent that could not begin says by its exit code."""
        if ended.exit_code == UNFIT:
            self._without_python.add(ended.image_id)
        elif ended.exit_code == NO_PLACE and ended.labels.get(naming.LABEL_FOLDER):
            self._shares_files = False
        else:
            return False
        return True

    def start_new(self, name: str, plan: Plan) -> str:
        """Create and start under this name; "" when it is to be adopted, or planned again with what was learned."""
        container_id = ""
        try:
            container_id = self._containers.create(name, plan.request())
            if self._start(container_id, plan.labels, plan.image_id):
                return container_id
        except NameInUse:
            pass
        except ImageMissing:
            raise image_missing(plan.blueprint.image) from None
        except PlaceMissing:
            self._shares_files = False
        finally:
            if plan.folder is not None and not container_id:
                clear_folder(str(plan.folder))
        return ""

    def _start(self, container_id: str, labels: Mapping[str, str], image_id: str) -> bool:
        """False when it is being removed, or the image has no Python: then it is removed, and the next plan knows."""
        try:
            self._containers.start(container_id)
        except ProviderGone:
            return False
        except ProviderInvalidRequest as error:
            self.remove(container_id, labels)
            if labels.get(naming.LABEL_MODE) == "agent" and "executable file not found" in error.message:
                self._without_python.add(image_id)
                return False
            raise
        return True

    def remove(self, container: str, labels: Mapping[str, str]) -> bool:
        """End a container, given by id or name, with the folder of its agent."""
        removed = self._containers.remove(container)
        clear_folder(labels.get(naming.LABEL_FOLDER, ""))
        return removed

    def folders(self, prefix: str) -> Iterator[Path]:
        """Agents' folders that this process can see."""
        yield from self._folder.glob(f"{prefix}-*")


def clear_folder(folder: str) -> None:
    """Remove an agent's folder where this process can see it; it holds a socket and nothing else."""
    if not folder:
        return
    place = Path(folder)
    try:
        for entry in place.iterdir():
            entry.unlink()
        place.rmdir()
    except OSError:
        return


def default_folder() -> Path:
    """Where agents' sockets are for a provider that is told nothing else."""
    import platformdirs

    return Path(platformdirs.user_data_dir("nexus", appauthor=False)) / "docker"
