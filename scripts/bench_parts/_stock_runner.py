"""The event sourcing library's own way of following a log on Postgres: `ProjectionRunner`, as its documentation has it.

It keeps the same table of executions as ours does, one event and one tracking record per transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatchmethod
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL

from nexus.adapters.stores import sql
from nexus.projections.tables import EXECUTIONS
from scripts.bench_parts._library import Box, live
from scripts.bench_parts._story import run

_STARTED = ("tenant_id", "actor", "status", "language", "code_sha256", "code_bytes", "timeout", "started_at")
_ENDED = ("status", "finished_at", "duration", "exit_code", "stdout_bytes", "stderr_bytes", "truncated")


class Boxes(Application[UUID]):
    """What the runner follows."""


class Runs(PostgresTrackingRecorder):
    """The table of executions, and how far it has come."""

    def __init__(self, datastore: PostgresDatastore, **more: Any) -> None:
        super().__init__(datastore, **more)
        self.sql_create_statements.append(SQL(sql.create_table(EXECUTIONS)))  # type: ignore[arg-type]

    def write(self, key: tuple[str, str], columns: tuple[str, ...], values: tuple[Any, ...], done: Tracking) -> None:
        """A row and the tracking record, in one transaction."""
        statement = sql.statement(sql.Shape(EXECUTIONS.name, EXECUTIONS.key, columns), "%s")
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, done)
            cursor.execute(statement, (*key, *values), prepare=True)


class RunsProjection(Projection[Runs]):
    """Like `nexus.projections.executions.Executions`."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        self.view.insert_tracking(tracking)

    @process_event.register
    def _(self, domain_event: Box.Started, tracking: Tracking) -> None:  # type: ignore[name-defined]
        e, key = domain_event, (domain_event.execution_id, str(domain_event.originator_id))
        values = ("default", "bench", "running", e.language, e.code_sha256, e.code_bytes, e.timeout)
        self.view.write(key, _STARTED, (*values, e.timestamp.isoformat()), tracking)

    @process_event.register
    def _(self, domain_event: Box.Finished, tracking: Tracking) -> None:  # type: ignore[name-defined]
        e, key = domain_event, (domain_event.execution_id, str(domain_event.originator_id))
        values = (e.timestamp.isoformat(), e.duration, e.exit_code, e.stdout_bytes, e.stderr_bytes, int(e.truncated))
        self.view.write(key, _ENDED, ("finished", *values), tracking)


def environment(url: str) -> Environment:
    """The library's settings for this database."""
    parts = conninfo_to_dict(url)
    return Environment(
        "Boxes",
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": str(parts["dbname"]),
            "POSTGRES_HOST": str(parts["host"]),
            "POSTGRES_PORT": str(parts.get("port") or 5432),
            "POSTGRES_USER": str(parts["user"]),
            "POSTGRES_PASSWORD": "-",
        },
    )


@contextmanager
def boxes(url: str) -> Iterator[Boxes]:
    """The library's application on this database."""
    app = Boxes(environment(url))
    try:
        yield app
    finally:
        app.close()


def fill(app: Boxes, runs: int, per_box: int = 10) -> tuple[UUID, int]:
    """A log of so many runs, some to a box; the last box and the last position."""
    for begin in range(0, runs, per_box):
        box = Box("bench")
        for number in range(begin, min(begin + per_box, runs)):
            live(box, *run(number))
            if number % 100 == 99:  # more of them than a socket holds, and its append waits for ever
                app.save(box)
        app.save(box)
    return box.id, app.recorder.max_notification_id() or 0


def follow(url: str, last: int) -> float:
    """Seconds that the runner needs, from the start of an empty view, to come to this position."""
    settings = environment(url)
    with ProjectionRunner(
        application_class=Boxes, projection_class=RunsProjection, view_class=Runs, env=dict(settings)
    ) as runner:
        began = time.perf_counter()
        runner.wait(last, timeout=600)
        return time.perf_counter() - began
