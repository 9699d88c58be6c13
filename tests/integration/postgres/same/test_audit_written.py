"""What Postgres writes for the audit; and what whoever owns the schema can do about it."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from nexus.adapters.stores.postgres import PostgresReading
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verdict import Verdict
from nexus.engine.audit.verifier import verify
from tests.integration.postgres.same.test_audit_tampering import key, tampering  # noqa: F401
from tests.support.postgres import OWNER, SUPERUSER, TestDatabase
from tests.support.world import ANN, World
from tests.unit.audit.test_written import *  # noqa: F403


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
