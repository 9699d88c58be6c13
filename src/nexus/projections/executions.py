"""What ran: one row for every execution, followed from the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from nexus.domain import events as ev
from nexus.domain.ports import RowWrite, Scalar, Table
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import to_text
from nexus.projections.tables import EXECUTIONS


class Executions:
    """Digests, sizes and outcomes of runs; neither code nor output."""

    name: ClassVar[str] = "executions"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (EXECUTIONS,)

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        columns = _COLUMNS.get(type(envelope.event))
        if columns is None:
            return ()
        event: Any = envelope.event
        key = {"execution_id": event.execution_id, "sandbox_id": sandbox_id_of(envelope.originator_id)}
        return (RowWrite(EXECUTIONS.name, key, columns(envelope, event)),)


def _started(envelope: ev.Envelope, event: ev.ExecutionStarted) -> dict[str, Scalar]:
    return {
        "tenant_id": envelope.tenant_id,
        "actor": envelope.actor,
        "agent_id": envelope.agent_id,
        "status": "running",
        "language": event.language,
        "code_sha256": event.code_sha256,
        "code_bytes": event.code_bytes,
        "timeout": event.timeout,
        "started_at": to_text(envelope.occurred_at),
    }


def _ended(envelope: ev.Envelope, event: ev.ExecutionFinished | ev.ExecutionTimedOut) -> dict[str, Scalar]:
    signal, oom_killed = (event.signal, event.oom_killed) if isinstance(event, ev.ExecutionFinished) else (None, False)
    return {
        "status": "finished" if isinstance(event, ev.ExecutionFinished) else "timed_out",
        "finished_at": to_text(envelope.occurred_at),
        "duration": event.duration,
        "exit_code": event.exit_code,
        "signal": signal,
        "oom_killed": int(oom_killed),
        "stdout_bytes": event.stdout_bytes,
        "stderr_bytes": event.stderr_bytes,
        "stdout_sha256": event.stdout_sha256,
        "stderr_sha256": event.stderr_sha256,
        "truncated": int(event.truncated),
    }


def _lost(envelope: ev.Envelope, event: ev.ExecutionLost) -> dict[str, Scalar]:
    return {"status": "lost", "finished_at": to_text(envelope.occurred_at), "reason": event.reason}


_COLUMNS: Final[dict[type[ev.Event], Callable[[ev.Envelope, Any], dict[str, Scalar]]]] = {
    ev.ExecutionStarted: _started,
    ev.ExecutionFinished: _ended,
    ev.ExecutionTimedOut: _ended,
    ev.ExecutionLost: _lost,
}
