"""What Postgres writes for the audit; and what whoever owns the schema can do about it."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from psycopg._capabilities import Capabilities

from nexus.adapters.stores.postgres import PostgresReading, PostgresStore
from nexus.adapters.stores.postgres.written import _PLAIN
from nexus.domain.errors import StoreError
from nexus.domain.sandbox import stream_id
from nexus.engine.audit.evidence import FIRST, LAST, LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verdict import Verdict
from nexus.engine.audit.verifier import verify
from tests.integration.postgres.same.test_audit_tampering import key, tampering  # noqa: F401
from tests.support.postgres import OWNER, SUPERUSER, TestDatabase
from tests.support.world import ANN, World
from tests.unit.audit.test_written import *  # noqa: F403
from tests.unit.domain.story import run_started
from tests.unit.projections.fleet import Fleet, new_id


def verified(prepared: TestDatabase) -> Verdict:
    with closing(PostgresReading(prepared.owner)) as reading:
        return verify(LogEvidence(reading))


@pytest.fixture
def edited(world: World, prepared: TestDatabase) -> int:
    """Where somebody has put another name."""
    world.engine.create(ANN, "box")
    Sealer(world.store).catch_up()
    with psycopg.connect(prepared.owner, autocommit=True) as owner:
        owner.execute("ALTER TABLE events DISABLE TRIGGER ALL")
        row = owner.execute("UPDATE events SET actor = 'user:eve' WHERE topic = 'sandbox.started' RETURNING position")
        ((position,),) = row.fetchall()
    return int(position)


def test_operators_of_the_schemas_owner_are_not_used(prepared: TestDatabase, edited: int) -> None:
    """They say what was sealed."""
    for statement in (
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.cat(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS"
        " $$ SELECT replace(pg_catalog.textcat($1, $2), 'user:eve', 'user:ann') $$",
        "CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.cat)",
        f"GRANT USAGE ON SCHEMA evil TO {OWNER}",
        f"ALTER DATABASE {prepared.name} SET search_path = evil, public, pg_catalog",
    ):
        prepared.run(statement, user=SUPERUSER)
    assert prepared.run("SELECT 'user:' || 'eve'", user=OWNER) == [("user:ann",)]
    assert [(finding.kind, finding.position) for finding in verified(prepared).findings] == [("edited", edited)]


def test_a_column_of_another_type_is_an_edit(world: World, prepared: TestDatabase) -> None:
    """Whatever it looks like as text."""
    world.engine.create(ANN, "box")
    Sealer(world.store).catch_up()
    assert verified(prepared).intact
    prepared.run("ALTER TABLE events ALTER COLUMN schema_version TYPE text", user=OWNER)
    verdict = verified(prepared)
    assert {finding.kind for finding in verdict.findings} == {"edited"}
    assert len(verdict.findings) == verdict.events


def test_one_by_one_where_libpq_is_an_old_one(
    world: World, prepared: TestDatabase, edited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Capabilities, "has_stream_chunked", lambda *_, **__: False)
    with closing(PostgresReading(prepared.owner)) as reading:
        some = list(reading.written(FIRST, LAST))
    assert [len(one.forms) for one in some] == [1] * len(world.store.read(0))
    assert [(finding.kind, finding.position) for finding in verified(prepared).findings] == [("edited", edited)]


def test_a_log_without_statistics_is_read_along_the_index(store: PostgresStore, prepared: TestDatabase) -> None:
    """As after a restore. The planner takes a stretch of it for a few events, which it would rather sort."""
    fleet = Fleet(store)
    for _ in range(15):
        store.append(fleet.envelopes(stream_id(new_id()), 0, [run_started(f"ex_{number}") for number in range(200)]))
    with closing(PostgresReading(prepared.owner)) as reading:
        explained = psycopg.RawCursor(reading._link).execute(f"EXPLAIN {_PLAIN}", [FIRST, store.head()])
        plan = "\n".join(line for (line,) in explained)
    assert "Index Scan using events_pkey" in plan, plan
    assert "Sort" not in plan, plan


def test_what_the_server_will_not_do_is_said(prepared: TestDatabase, edited: int) -> None:
    """While it sends; and something else can be asked afterwards."""
    with closing(PostgresReading(prepared.owner)) as reading:
        reading._link.execute("SAVEPOINT before")
        with pytest.raises(StoreError, match="out of range"):
            list(reading.written(FIRST, 1 << 70))
        reading._link.execute("ROLLBACK TO before")
        assert edited in [int(place) for one in reading.written(FIRST, LAST) for place in one.positions]
