"""Code and output of runs, kept on request: the values that are stored, and the port of what stores them.

A body is never part of an event, a seal or a read model. What is stored is ciphertext; each sandbox has a data key of
its own, stored wrapped by a master key that the database never sees. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from nexus.domain.ports import EventStore, RowWrite

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SEALED: Final = 1024 * 1024 + 64
"""Bytes of one stored body: as much as code may have and as is kept of an output stream, and what sealing adds."""

BODIES: Final = "bodies"
KEYS: Final = "body_keys"
"""Names of the tables. The migrations make them; rows of both go with the append that records their erasure."""


class BodyKind(StrEnum):
    """Which of the three bodies of a run."""

    CODE = "code"
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class BodyKey:
    """A sandbox's data key, wrapped. It goes with an erasure, and with it whatever it had sealed."""

    key_id: str
    """Never given twice: a run that outlasts an erasure finds its key gone, not another in its place."""
    sandbox_id: str
    tenant_id: str
    wrapped_by: str
    """Name of the master key."""
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class SealedBody:
    """One body as it is stored."""

    key_id: str
    sandbox_id: str
    execution_id: str
    kind: BodyKind
    tenant_id: str
    kept_at: datetime
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Stock:
    """What is stored, of one sandbox or of all."""

    executions: int
    size: int
    """Bytes, sealed."""
    keys: int


class BodyStore(Protocol):
    """Stores bodies beside an event store, in the same database. Thread-safe; raises `StoreError`.

    Where a tenant is given, rows of other tenants are not there.
    """

    def key(self, sandbox_id: str, tenant_id: str) -> BodyKey | None:
        """The sandbox's present data key."""
        ...

    def add_key(self, key: BodyKey) -> BodyKey:
        """Store the sandbox's data key; returns the one that is there, which may be another's who was first."""
        ...

    def put(self, bodies: Sequence[SealedBody]) -> bool:
        """Store bodies of one run, all or none; the same again changes nothing. False: their key is gone."""
        ...

    def of(self, sandbox_id: str, execution_id: str, tenant_id: str) -> list[SealedBody]:
        """The bodies of one run."""
        ...

    def stock(self, sandbox_id: str | None = None) -> Stock: ...

    def kept_before(self, moment: datetime, limit: int) -> Mapping[str, Sequence[str]]:
        """Sandbox → runs whose oldest body was stored before then; at most `limit` runs, the oldest first."""
        ...

    def scrub(self) -> None:
        """After an erasure: overwrite what the database still holds of deleted rows, as far as it can do that."""
        ...


def erasure(sandbox_id: str, executions: Sequence[str] | None = None) -> list[RowWrite]:
    """What goes into the append that records an erasure: everything of a sandbox with its key, or these runs."""
    if executions is None:
        return [RowWrite(table, {"sandbox_id": sandbox_id}, None) for table in (BODIES, KEYS)]
    return [RowWrite(BODIES, {"sandbox_id": sandbox_id, "execution_id": run}, None) for run in executions]


class BodyKeepingStore(EventStore, Protocol):
    """An event store that has a body store beside it."""

    @property
    def bodies(self) -> BodyStore: ...
