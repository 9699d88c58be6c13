"""What an operator is told: who holds readers back, how far read models are, what they leave alone and what to do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.sandbox import stream_id
from nexus.testing.store_contract.base import envelope, new_stream
from nexus.testing.store_contract.reading import FromTheFuture
from tests.integration.cli.console import Console
from tests.support.postgres import APPLICATION, SUPERUSER, TestDatabase


@pytest.fixture
def nexus(tmp_path: Path, prepared: TestDatabase) -> Console:
    console = Console(tmp_path)
    console.env["NEXUS_DATABASE_URL"] = prepared.application
    console.env["NEXUS_ADMIN"] = "true"
    return console


def finding(nexus: Console, check: str) -> dict[str, Any]:
    told = nexus.ok("doctor", "--json").json
    (found,) = [one for one in told["findings"] if one["check"] == check]
    return dict(found)


def blocked(store: PostgresStore) -> list[Any]:
    """Whom readers wait for, once it is old enough to be told of."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [one for one in store.held_back()[1] if one.seconds is None or one.seconds > 3]
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("nobody holds readers back")


# --- who holds readers back ------------------------------------------------------------------------------------------
def test_a_transaction_in_another_database_is_named(nexus: Console, store: PostgresStore) -> None:
    """It has nothing to do with Nexus, and everybody's reading waits for it."""
    assert finding(nexus, "readers")["ok"]
    url = nexus.env["NEXUS_DATABASE_URL"].replace(store._database.address.parameters()["dbname"], "postgres")
    with psycopg.connect(url.replace(APPLICATION, SUPERUSER), application_name="nightly-report") as somebody:
        somebody.execute("SELECT pg_current_xact_id()")
        pid = somebody.info.backend_pid
        for _ in range(3):
            store.append([envelope(new_stream(), 1)])
        blocked(store)
        told = finding(nexus, "readers")
        assert not told["ok"]
        assert not told["required"], "it delays, and breaks nothing"
        assert (
            f"3 events cannot be read yet, because of session {pid} of postgres in database postgres"
            in (told["detail"])
        )
        assert "nightly-report" in told["detail"]
        assert f"pg_terminate_backend({pid})" in told["hint"]
        somebody.rollback()
    assert finding(nexus, "readers")["ok"]


def test_how_long_is_told_to_who_may_know(prepared: TestDatabase, store: PostgresStore) -> None:
    owner = PostgresStore(prepared.owner)
    with psycopg.connect(prepared.owner) as mine:
        mine.execute("SELECT pg_current_xact_id()")
        (seen_by_owner,) = owner.held_back()[1]
        assert seen_by_owner.seconds is not None
        assert "idle in transaction" in str(seen_by_owner)
        (seen_by_another,) = store.held_back()[1]
        assert seen_by_another.seconds is None, "the server tells roles of their own sessions only"
        assert seen_by_another.name == seen_by_owner.name
    owner.close()


def test_a_prepared_transaction_that_nobody_ends(prepared: TestDatabase, store: PostgresStore) -> None:
    """No session is there to be ended, and it outlives a restart."""
    with psycopg.connect(prepared.owner) as one:
        one.execute("SELECT pg_current_xact_id()")
        one.execute("PREPARE TRANSACTION 'left behind'")
    try:
        (blocker,) = store.held_back()[1]
        assert "prepared transaction 'left behind'" in str(blocker)
        assert blocker.remedy == "ROLLBACK PREPARED 'left behind'"
    finally:
        with psycopg.connect(prepared.owner, autocommit=True) as one:
            one.execute("ROLLBACK PREPARED 'left behind'")
    assert store.held_back() == (0, [])


# --- read models -----------------------------------------------------------------------------------------------------
def test_how_far_read_models_are(nexus: Console, store: PostgresStore) -> None:
    nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "1")
    (executions,) = [
        one for one in nexus.ok("projections", "status", "--json").json["projections"] if one["name"] == "executions"
    ]
    behind = store.views.query("SELECT count(*) AS n FROM events")[0]["n"]
    assert executions["lag"] == behind, "events, not positions"
    assert f"{behind} events behind" in finding(nexus, "read model executions")["detail"]
    nexus.ok("worker", "--once")
    assert finding(nexus, "read model executions")["detail"] == "up to date"


def test_from_the_alarm_to_its_end_by_commands_alone(nexus: Console, store: PostgresStore) -> None:
    ill = nexus.create("ill")
    version = store.last(stream_id(ill)).originator_version  # type: ignore[union-attr]
    strange = envelope(stream_id(ill), version + 1, FromTheFuture(where="Mars"))
    store.append([strange])
    assert nexus("worker", "--once").status != 0, "a sandbox that cannot be loaded is a problem, and holds nothing up"
    status = nexus("projections", "status")
    assert status.status == 7
    assert "projections quarantine" in status.err
    assert not finding(nexus, "read model executions")["ok"]
    shown = nexus("projections", "quarantine")
    assert shown.status == 7
    for word in (stream_id(ill), "sandbox.teleported", '{"where":"Mars"}', "1 events"):
        assert word in shown.text
    (held,) = nexus("projections", "quarantine", "executions", "--json").json["quarantine"]
    assert (held["event_id"], held["waiting"]) == (strange.event_id, 1)
    again = nexus("projections", "retry", "executions", "--json")
    assert (again.status, again.error["code"]) == (7, "verification_failed")
    assert nexus("projections", "skip", "sandboxes", ill).status != 0
    assert nexus("projections", "skip", "executions", ill, env={"NEXUS_ADMIN": "false"}).status != 0
    assert nexus.ok("projections", "skip", "executions", ill).text == f"executions takes {ill} again\n"
    assert nexus.ok("projections", "quarantine").text == "Nothing is left alone.\n"
    assert nexus.ok("projections", "status").status == 0
    assert nexus.ok("projections", "retry", "executions").text == "Nothing is left alone.\n"
    (row,) = store.views.query("SELECT actor, position FROM skipped")
    assert row["actor"] == "user:ann"
