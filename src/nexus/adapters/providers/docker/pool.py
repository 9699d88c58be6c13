"""The warm pool: containers that were made before anybody asked, so that a sandbox is there in milliseconds.

A member is taken by setting its agent up, which the agent allows once: that is the lock, since an engine renames for
whoever asks last. Its new name then says whose it is. A member that nobody takes ends by itself after a while, and
what a process that died left half-way is cleared by the next refill, here or in any other process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from nexus.adapters.providers.docker import naming
from nexus.adapters.providers.docker.agent import AgentInside
from nexus.adapters.providers.docker.containers import Containers, NameInUse, Seen
from nexus.adapters.providers.docker.making import Maker, clear_folder
from nexus.domain.errors import ProviderError, ProviderGone, ProviderUnsupported
from nexus.domain.provider import SandboxSpec

LIFETIME: Final = timedelta(hours=1)
"""How long a member waits to be taken before it ends by itself."""
GRACE: Final = timedelta(seconds=60)
"""How long a member may be half-made: after that whoever was making it is taken to be dead."""
NO_SECRETS: Final = "no-secrets"
"""A file in the folder of a taken member whose sandbox was given no values: a label cannot say so any more."""


@dataclass(frozen=True, slots=True)
class Refilled:
    """What a refill did."""

    made: int = 0
    removed: int = 0


def had_no_secrets(folder: str) -> bool:
    """Whether a taken member was set up without values that a restart would lose."""
    return bool(folder) and (Path(folder) / NO_SECRETS).exists()


class Pool:
    """Up to `size` members for each kind of sandbox in each installation."""

    def __init__(self, containers: Containers, maker: Maker, inside: Callable[[Seen], AgentInside], size: int) -> None:
        self._containers = containers
        self._maker = maker
        self._inside = inside
        self._size = size
        self._refilling = threading.Lock()

    def members(self, installation: str, kind: str = "") -> list[Seen]:
        """All members, or those of one kind, oldest first."""
        return [
            seen
            for seen in self._containers.listing(installation)
            if seen.owner is not None and seen.owner.pool and kind in ("", seen.owner.pool)
        ]

    # --- taking ----------------------------------------------------------------------------------------------------
    def take(self, spec: SandboxSpec, env: Mapping[str, str]) -> Seen | None:
        """A member that has become this sandbox; None when none is left, or the sandbox exists already."""
        kind = self._maker.kind(spec)
        name = naming.container_name(spec.installation, spec.sandbox_id, spec.generation)
        for member in self.members(spec.installation, kind) if kind else ():
            if member.status != "running" or not self._claim(member, env, spec.expires_at):
                continue
            try:
                self._containers.rename(member.container_id, name)
            except NameInUse:
                self._remove(member)
                return None
            except ProviderGone:
                continue  # cleared in that moment
            return self._containers.look(member.container_id)
        return None

    def _claim(self, member: Seen, env: Mapping[str, str], expires_at: datetime) -> bool:
        try:
            if not self._inside(member).claim(env, expires_at):
                return False
        except ProviderError:
            return False  # it is just ending, or was never quite there
        folder = member.labels.get(naming.LABEL_FOLDER)
        if folder and not env:
            (Path(folder) / NO_SECRETS).touch()
        return True

    # --- filling ---------------------------------------------------------------------------------------------------
    def refill(self, spec: SandboxSpec) -> Refilled:
        """Make what is missing for sandboxes like this one; clear what is too much, what ended and what was left.

        Several at once may make a few too many, which the next one removes. Raises ProviderUnsupported for an image
        without Python.
        """
        with self._refilling:
            removed = sum(self._remove(member) for member in self.members(spec.installation) if self._is_lost(member))
            kind = self._maker.kind(spec)
            made = 0
            while made < self._size and len(self.members(spec.installation, kind)) < self._size:
                kind = self._make(spec, kind)
                made += 1
            surplus = self.members(spec.installation, kind)[self._size :]
            self._clear_folders(spec.installation)
            return Refilled(made, removed + sum(self._remove(member) for member in surplus))

    def drain(self, installation: str) -> int:
        """Remove all members of the installation; how many there were."""
        removed = sum(self._remove(member) for member in self.members(installation))
        self._clear_folders(installation)
        return removed

    def _clear_folders(self, installation: str) -> None:
        """Agents' folders of members that somebody removed behind our back."""
        used = {seen.labels.get(naming.LABEL_FOLDER, "") for seen in self._containers.listing(installation)}
        for folder in self._maker.folders(naming.folder_name(installation, "pool")):
            with contextlib.suppress(OSError):
                age = datetime.now(UTC) - datetime.fromtimestamp(folder.stat().st_mtime, UTC)
                if str(folder) not in used and age >= GRACE:
                    clear_folder(str(folder))

    def _make(self, spec: SandboxSpec, kind: str) -> str:
        """One member more; its kind, which is another one when the image turned out to be without Python."""
        container_id = ""
        while not container_id:
            kind = self._maker.kind(spec)
            if not kind:
                raise ProviderUnsupported("An image without Python cannot be kept warm: there is no agent to wait")
            plan = self._maker.plan(spec, naming.folder_name(spec.installation, "pool"), LIFETIME)
            labels = {**plan.labels, naming.LABEL_POOL: kind}
            name = naming.pool_name(spec.installation, kind)
            container_id = self._maker.start_new(name, replace(plan, labels=labels))
        seen = self._containers.look(container_id)
        if seen is not None:
            self._inside(seen).await_birth()
        return kind

    def _is_lost(self, member: Seen) -> bool:
        """Whether nobody will take it: it ended, or whoever made or took it did not get further."""
        if member.ended:
            return True
        if member.created_at is not None and datetime.now(UTC) - member.created_at < GRACE:
            return False
        return member.status != "running" or self._inside(member).configured()

    def _remove(self, member: Seen) -> bool:
        """By its name as a member: one that has become a sandbox in the meantime does not answer to that any more."""
        if not self._containers.remove(member.name):
            return False
        clear_folder(member.labels.get(naming.LABEL_FOLDER, ""))
        return True
