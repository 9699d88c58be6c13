"""Making, finding, pausing and ending sandboxes: the steps that run on the connection's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from nexus.adapters.providers.modal import guest
from nexus.adapters.providers.modal.failures import is_missing, is_taken
from nexus.adapters.providers.modal.naming import TAG_INSTALLATION, Handle, name_of, tagged, tags_of
from nexus.adapters.providers.modal.session import Session
from nexus.domain.errors import ProviderInvalidRequest
from nexus.domain.provider import SandboxSpec

if TYPE_CHECKING:
    import modal

MAX_LIFETIME: Final = 24 * 3600
"""Seconds that Modal lets a sandbox live (https://modal.com/docs/guide/sandboxes, "Timeouts")."""
LISTING_WIDTH: Final = 16
"""Sandboxes of a list that are asked for their tags at once: the list itself does not show them."""
LEAST_MEMORY: Final = 128
LEAST_CPU: Final = 0.125
"""What Modal reserves by default. Limits are ceilings, so no more than this is reserved, and paid, up front."""

Found = tuple[Handle, datetime | None]


@dataclass(frozen=True, slots=True)
class Making:
    """How a sandbox is made, beyond its spec."""

    image: modal.Image
    env: Mapping[str, str]
    idle_timeout: int | None
    origin: str = ""


async def create(session: Session, spec: SandboxSpec, making: Making) -> Found:
    """Create or adopt: the name is unique among what runs, so whoever comes second finds the first one's."""
    import modal

    now = datetime.now(UTC)
    limits = spec.limits
    try:
        sandbox = await modal.Sandbox.create.aio(
            "sleep",
            str(2 * MAX_LIFETIME),  # an image may bring a command of its own, which may end at once
            app=await session.app(),
            client=await session.client(),
            name=name_of(spec),
            tags=tags_of(spec, now, making.origin),
            image=making.image,
            env=dict(guest.sandbox_environment(making.env)),
            timeout=MAX_LIFETIME,
            idle_timeout=making.idle_timeout,
            gpu=spec.template.gpu,
            cpu=(min(LEAST_CPU, limits.cpus), limits.cpus) if limits.cpus else None,
            memory=(min(LEAST_MEMORY, limits.memory_mb), limits.memory_mb) if limits.memory_mb else None,
            block_network=spec.network == "none",
        )
    except Exception as error:
        if is_taken(error) and (found := await adopt(session, spec)) is not None:
            return found
        if is_missing(error):
            session.forget_image(making.image)  # deleted since it was last used
        raise
    session.remember(sandbox)
    return tagged(sandbox.object_id, tags_of(spec, now, making.origin))


async def adopt(session: Session, spec: SandboxSpec) -> Found | None:
    """The sandbox of this generation that runs already, if there is one."""
    import modal

    try:
        sandbox = await modal.Sandbox.from_name.aio(
            session.app_name, name_of(spec), environment_name=session.environment, client=await session.client()
        )
        tags = await sandbox.get_tags.aio()
    except Exception as error:
        if is_missing(error):
            return None
        raise
    if tags.get(TAG_INSTALLATION) != spec.installation:
        raise ProviderInvalidRequest(f"The sandbox {name_of(spec)} in Modal belongs to another installation")
    return tagged(session.remember(sandbox).object_id, tags)


async def listed(session: Session, tags: Mapping[str, str]) -> list[Found]:
    """What runs and carries these tags, oldest first. The SDK fetches page after page until an empty one."""
    import modal

    app = await session.app()
    found = [
        sandbox
        async for sandbox in modal.Sandbox.list.aio(app_id=app.app_id, tags=dict(tags), client=await session.client())
    ]
    gate = asyncio.Semaphore(LISTING_WIDTH)

    async def read(sandbox: modal.Sandbox) -> Found | None:
        async with gate:
            try:
                return tagged(sandbox.object_id, await sandbox.get_tags.aio())
            except Exception as error:
                if is_missing(error):  # it ended meanwhile
                    return None
                raise

    every = [one for one in await asyncio.gather(*map(read, found)) if one is not None]
    return sorted(every, key=lambda one: (one[0].generation, one[1] or datetime.now(UTC)))


async def terminate(session: Session, modal_id: str) -> bool:
    """End a sandbox with all that runs in it; False when there was nothing to end."""
    sandbox = await session.look(modal_id)
    if sandbox is None:
        return False
    try:
        await sandbox.terminate.aio(wait=True)
    except Exception as error:
        if not is_missing(error):
            raise
        return False
    finally:
        session.forget(modal_id)
    return True


async def take_snapshot(session: Session, modal_id: str, seconds: int, ttl: int | None) -> str:
    """Snapshot the file system; the image's id."""
    sandbox = await session.handle(modal_id)
    if sandbox is None:
        from modal.exception import NotFoundError

        raise NotFoundError("the sandbox has ended")
    image = await sandbox.snapshot_filesystem.aio(seconds, ttl=ttl)
    return image.object_id
