"""What ran: one row for every execution, followed from the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from nexus.domain import events as ev
from nexus.domain.ports import RowWrite, Scalar, Table
from nexus.domain.sandbox import sandbox_id_of
from nexus.domain.values import to_text
from nexus.projections.tables import EXECUTIONS

Values = dict[str, Scalar]
_Fields = Mapping[str, Any]


class Executions:
    """Digests, sizes and outcomes of runs; neither code nor output."""

    name: ClassVar[str] = "executions"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[Table, ...]] = (EXECUTIONS,)

    def apply(self, envelope: ev.Envelope) -> Sequence[RowWrite]:
        found = self.plain(
            envelope.topic,
            vars(envelope.event),
            envelope.originator_id,
            to_text(envelope.occurred_at),
            (envelope.tenant_id, envelope.actor, envelope.agent_id),
        )
        if found is None:
            return ()
        return (RowWrite(EXECUTIONS.name, dict(zip(EXECUTIONS.key, found[0], strict=True)), found[1]),)

    @staticmethod
    def plain(
        topic: str, event: _Fields, stream: str, at: str, whose: tuple[str, str, str | None]
    ) -> tuple[tuple[Scalar, ...], Values] | None:
        """See `nexus.projections.catalog.PlainProjection`."""
        columns = _COLUMNS.get(topic)
        if columns is None:
            return None
        return (event["execution_id"], sandbox_id_of(stream)), columns(event, at, whose)


def _started(event: _Fields, at: str, whose: tuple[str, str, str | None]) -> Values:
    tenant, actor, agent = whose
    return {
        "tenant_id": tenant,
        "actor": actor,
        "agent_id": agent,
        "status": "running",
        "language": event["language"],
        "code_sha256": event["code_sha256"],
        "code_bytes": event["code_bytes"],
        "timeout": event["timeout"],
        "started_at": at,
    }


def _finished(event: _Fields, at: str, whose: object) -> Values:
    return _ended("finished", event, at, event["signal"], int(event["oom_killed"]))


def _timed_out(event: _Fields, at: str, whose: object) -> Values:
    return _ended("timed_out", event, at, None, 0)


def _ended(status: str, event: _Fields, at: str, signal: int | None, oom_killed: int) -> Values:
    return {
        "status": status,
        "finished_at": at,
        "duration": event["duration"],
        "exit_code": event["exit_code"],
        "signal": signal,
        "oom_killed": oom_killed,
        "stdout_bytes": event["stdout_bytes"],
        "stderr_bytes": event["stderr_bytes"],
        "stdout_sha256": event["stdout_sha256"],
        "stderr_sha256": event["stderr_sha256"],
        "truncated": int(event["truncated"]),
    }


def _lost(event: _Fields, at: str, whose: object) -> Values:
    return {"status": "lost", "finished_at": at, "reason": event["reason"]}


_COLUMNS: Final[dict[str, Callable[[_Fields, str, tuple[str, str, str | None]], Values]]] = {
    ev.ExecutionStarted.TOPIC: _started,
    ev.ExecutionFinished.TOPIC: _finished,
    ev.ExecutionTimedOut.TOPIC: _timed_out,
    ev.ExecutionLost.TOPIC: _lost,
}
