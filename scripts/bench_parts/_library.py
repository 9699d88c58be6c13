"""The event sourcing library as its own documentation uses it: what our figures are held against."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.utils import Environment

from nexus.domain import events as ev


class Box(Aggregate):
    """The same facts as a sandbox's runs, in the library's own style."""

    @event("Created")
    def __init__(self, name: str) -> None:
        self.name = name
        self.open: dict[str, tuple[datetime, str]] = {}
        self.runs = 0
        self.expires_at: datetime | None = None

    @event("Started")
    def start(
        self,
        execution_id: str,
        language: str,
        code_sha256: str,
        code_bytes: int,
        timeout: int,
        lease_until: datetime,
        holder: str,
        expires_at: datetime,
    ) -> None:
        self.open[execution_id] = (lease_until, holder)
        self.runs += 1
        self.expires_at = expires_at

    @event("Finished")
    def finish(
        self,
        execution_id: str,
        exit_code: int,
        duration: float,
        stdout_bytes: int,
        stderr_bytes: int,
        stdout_sha256: str,
        stderr_sha256: str,
        truncated: bool,
        expires_at: datetime,
    ) -> None:
        self.open.pop(execution_id)
        self.expires_at = expires_at


def application(file: Path) -> Application[UUID]:
    settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(file)}
    return Application(env=Environment("bench", settings))


def live(box: Box, started: ev.ExecutionStarted, finished: ev.ExecutionFinished) -> None:
    """Tell a box of one run; it knows of the facts that its methods name."""
    box.start(**{name: getattr(started, name) for name in _STARTED})
    box.finish(**{name: getattr(finished, name) for name in _FINISHED})


_STARTED = ("execution_id", "language", "code_sha256", "code_bytes", "timeout", "lease_until", "holder", "expires_at")
_FINISHED = (
    "execution_id", "exit_code", "duration", "stdout_bytes", "stderr_bytes", "stdout_sha256", "stderr_sha256",
    "truncated", "expires_at",
)  # fmt: skip
