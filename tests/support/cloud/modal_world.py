"""What exists in the loopback Modal: apps, images, sandboxes, and the commands that run in them.

Everything here belongs to the server's event loop; tests reach it through `ModalCloud`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.support.cloud.common import Machine
from tests.support.cloud.modal_commands import Command

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_LIFETIME = 24 * 3600

GenericResult = api_pb2.GenericResult


def new_id(prefix: str, length: int = 26) -> str:
    return f"{prefix}-{''.join(secrets.choice(ALPHABET) for _ in range(length))}"


@dataclass(slots=True)
class SandboxRecord:
    """One sandbox. `result` is None while it runs."""

    id: str
    task_id: str
    app_id: str
    definition: api_pb2.Sandbox
    tags: dict[str, str]
    created_at: float
    machine: Machine
    commands: dict[str, Command] = field(default_factory=dict)
    result: api_pb2.GenericResult | None = None
    timer: asyncio.TimerHandle | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    unreachable: bool = False
    """Set by a fault: whoever asks for it gets a dead connection instead of an answer."""

    @property
    def running(self) -> bool:
        return self.result is None

    def metadata(self) -> api_pb2.SandboxHandleMetadata:
        return api_pb2.SandboxHandleMetadata(app_id=self.app_id, result=self.result)


class World:
    """All of it. Names, tags and images behave as Modal documents them; nothing is isolated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.apps: dict[str, str] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.images: dict[str, Path | None] = {}
        """Image id to the folder that it holds; None for one that was built and is empty."""
        self.built: dict[bytes, str] = {}
        self.sandboxes: dict[str, SandboxRecord] = {}
        self._last_time = 0.0

    def _now(self) -> float:
        # Strictly rising, because lists are paged by time alone.
        self._last_time = max(time.time(), self._last_time + 1e-3)
        return self._last_time

    def create(
        self, app_id: str, definition: api_pb2.Sandbox, tags: Mapping[str, str], env: Mapping[str, str], *, v2: bool
    ) -> SandboxRecord:
        if definition.name and self.by_name(app_id, definition.name) is not None:
            raise GRPCError(Status.ALREADY_EXISTS, f"a sandbox named {definition.name} is running")
        if definition.timeout_secs > MAX_LIFETIME:
            raise GRPCError(Status.INVALID_ARGUMENT, "timeout is more than 24 hours")
        if definition.image_id not in self.images:
            raise GRPCError(Status.NOT_FOUND, f"there is no image {definition.image_id}")
        record = SandboxRecord(
            # 22 characters mark the older kind, which the SDK asks through other calls.
            id=new_id("sb", 26 if v2 else 22),
            task_id=new_id("ta") + ("V" if v2 else ""),
            app_id=app_id,
            definition=definition,
            tags=dict(tags),
            created_at=self._now(),
            machine=Machine(self.folder, env, copy_of=self.images[definition.image_id]),
        )
        self.sandboxes[record.id] = record
        record.timer = asyncio.get_running_loop().call_later(
            definition.timeout_secs, self.finish, record, GenericResult.GENERIC_STATUS_TIMEOUT
        )
        return record

    def by_name(self, app_id: str, name: str) -> SandboxRecord | None:
        for record in self.sandboxes.values():
            if record.running and record.app_id == app_id and record.definition.name == name:
                return record
        return None

    def by_task(self, task_id: str) -> SandboxRecord:
        for record in self.sandboxes.values():
            if record.task_id == task_id:
                return record
        raise GRPCError(Status.NOT_FOUND, f"there is no task {task_id}")

    def get(self, sandbox_id: str) -> SandboxRecord:
        try:
            return self.sandboxes[sandbox_id]
        except KeyError:
            raise GRPCError(Status.NOT_FOUND, f"there is no sandbox {sandbox_id}") from None

    def start(self, record: SandboxRecord, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> Command:
        try:
            child = record.machine.start(argv, env=env)
        except FileNotFoundError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, f"cannot execute {argv[0]}: {error.strerror}") from None
        return Command(record.machine, child, timeout)

    def finish(self, record: SandboxRecord, status: api_pb2.GenericResult.GenericStatus.ValueType) -> None:
        """End a sandbox with all its processes. It is still known by its id, as with Modal."""
        if not record.running:
            return
        record.result = GenericResult(status=status)
        record.ended.set()
        if record.timer is not None:
            record.timer.cancel()
        for command in record.commands.values():
            command.abandon()
        record.machine.destroy()

    def snapshot(self, record: SandboxRecord) -> str:
        image_id = new_id("im")
        folder = self.folder / image_id
        record.machine.snapshot(folder)
        self.images[image_id] = folder
        return image_id

    def close(self) -> None:
        for record in self.sandboxes.values():
            self.finish(record, GenericResult.GENERIC_STATUS_TERMINATED)
