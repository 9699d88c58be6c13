"""What ran: one row for every execution, followed from the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, ClassVar, Final

from nexus.domain import events as ev
from nexus.domain.ports import RowWrite, Scalar, Table
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import to_text
from nexus.projections.tables import EXECUTIONS

_Fields = Mapping[str, Any]
_Whose = tuple[str, str, str | None]
_Row = tuple[Scalar, ...]

_STARTED: Final = (
    "tenant_id", "actor", "agent_id", "status", "started_at", "language", "code_sha256", "code_bytes", "timeout",
)  # fmt: skip
_MEASURED: Final = (
    "duration", "exit_code", "stdout_bytes", "stderr_bytes", "stdout_sha256", "stderr_sha256",
)  # fmt: skip
_ENDED: Final = ("status", "finished_at", "signal", "oom_killed", "truncated", *_MEASURED)

_sandbox: Final = lru_cache(maxsize=4096)(sandbox_id_of)
_given: Final = itemgetter(*_STARTED[5:])
_measured: Final = itemgetter(*_MEASURED)


def _started(event: _Fields, stream: str, at: str, whose: _Whose) -> _Row:
    return (event["execution_id"], _sandbox(stream), *whose, "running", at, *_given(event))


def _finished(event: _Fields, stream: str, at: str, _whose: _Whose) -> _Row:
    return _ended("finished", event, stream, at, event["signal"], int(event["oom_killed"]))


def _timed_out(event: _Fields, stream: str, at: str, _whose: _Whose) -> _Row:
    return _ended("timed_out", event, stream, at, None, 0)


def _ended(status: str, event: _Fields, stream: str, at: str, signal: int | None, oom_killed: int) -> _Row:
    key = event["execution_id"], _sandbox(stream)
    return (*key, status, at, signal, oom_killed, int(event["truncated"]), *_measured(event))


def _lost(event: _Fields, stream: str, at: str, _whose: _Whose) -> _Row:
    return event["execution_id"], _sandbox(stream), "lost", at, event["reason"]


class Executions:
    """Digests, sizes and outcomes of runs; neither code nor output."""

    name: ClassVar[str] = "executions"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (EXECUTIONS,)
    plain: ClassVar[Mapping[str, tuple[tuple[str, ...], Callable[[_Fields, str, str, _Whose], _Row]]]] = {
        ev.ExecutionStarted.TOPIC: (_STARTED, _started),
        ev.ExecutionFinished.TOPIC: (_ENDED, _finished),
        ev.ExecutionTimedOut.TOPIC: (_ENDED, _timed_out),
        ev.ExecutionLost.TOPIC: (("status", "finished_at", "reason"), _lost),
    }
    """See `nexus.projections.catalog.PlainProjection`."""
    begins: ClassVar[frozenset[str]] = frozenset({ev.ExecutionStarted.TOPIC})

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        found = self.plain.get(envelope.topic)
        if found is None:
            return ()
        columns, row_of = found
        whose = (envelope.tenant_id, envelope.actor, envelope.agent_id)
        row = row_of(vars(envelope.event), envelope.originator_id, to_text(envelope.occurred_at), whose)
        key = dict(zip(EXECUTIONS.key, row, strict=False))
        return (RowWrite(EXECUTIONS.name, key, dict(zip(columns, row[len(key) :], strict=True))),)
