"""What ran: one row for every execution, followed from the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, ClassVar, Final

from nexus.domain import events as ev
from nexus.domain.ports import RowWrite, Table
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import to_text
from nexus.projections.columns import Events, Row, RowsOf
from nexus.projections.tables import EXECUTIONS

_STARTED: Final = (
    "tenant_id", "actor", "agent_id", "status", "started_at", "language", "code_sha256", "code_bytes", "timeout",
)  # fmt: skip
_MEASURED: Final = (
    "duration", "exit_code", "stdout_bytes", "stderr_bytes", "stdout_sha256", "stderr_sha256",
)  # fmt: skip
_ENDED: Final = ("status", "finished_at", "signal", "oom_killed", "truncated", *_MEASURED)

_sandbox: Final = lru_cache(maxsize=4096)(sandbox_id_of)


def _started(events: Events) -> Iterator[Row]:
    whose = events.tenants, events.actors, events.agents
    return _rows(events, *whose, repeat("running"), events.occurred_at, *events.get(*_STARTED[5:]))


def _finished(events: Events) -> Iterator[Row]:
    signal, oom_killed = events.get("signal", "oom_killed")
    return _ended("finished", events, signal, map(int, oom_killed))


def _timed_out(events: Events) -> Iterator[Row]:
    return _ended("timed_out", events, repeat(None), repeat(0))


def _ended(status: str, events: Events, signal: Iterable[Any], oom_killed: Iterable[int]) -> Iterator[Row]:
    truncated, *measured = events.get("truncated", *_MEASURED)
    return _rows(events, repeat(status), events.occurred_at, signal, oom_killed, map(int, truncated), *measured)


def _lost(events: Events) -> Iterator[Row]:
    return _rows(events, repeat("lost"), events.occurred_at, *events.get("reason"))


def _rows(events: Events, *columns: Iterable[Any]) -> Iterator[Row]:
    return zip(*events.get("execution_id"), map(_sandbox, events.streams), *columns, strict=False)


class Executions:
    """Digests, sizes and outcomes of runs; neither code nor output."""

    name: ClassVar[str] = "executions"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (EXECUTIONS,)
    plain: ClassVar[Mapping[str, tuple[tuple[str, ...], RowsOf]]] = {
        ev.ExecutionStarted.TOPIC: (_STARTED, _started),
        ev.ExecutionFinished.TOPIC: (_ENDED, _finished),
        ev.ExecutionTimedOut.TOPIC: (_ENDED, _timed_out),
        ev.ExecutionLost.TOPIC: (("status", "finished_at", "reason"), _lost),
    }
    """See `nexus.projections.catalog.PlainProjection`."""
    begins: ClassVar[frozenset[str]] = frozenset({ev.ExecutionStarted.TOPIC})
    ends: ClassVar[frozenset[str]] = frozenset(plain) - begins

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        found = self.plain.get(envelope.topic)
        if found is None:
            return ()
        columns, rows_of = found
        event = Events(
            {name: [value] for name, value in vars(envelope.event).items()},
            [envelope.originator_id],
            [to_text(envelope.occurred_at)],
            [envelope.tenant_id],
            [envelope.actor],
            [envelope.agent_id],
        )
        (row,) = rows_of(event)
        key = dict(zip(EXECUTIONS.key, row, strict=False))
        return (RowWrite(EXECUTIONS.name, key, dict(zip(columns, row[len(key) :], strict=True))),)
