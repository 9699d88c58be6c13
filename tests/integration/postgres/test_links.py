"""The short way to run a statement: prepared once, given texts, and as interruptible as the driver's own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from nexus.adapters.stores.postgres import link as links
from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link, Parameter
from tests.support.postgres import TestDatabase
from tests.support.waiting import until


@pytest.fixture
def link(prepared: TestDatabase) -> Iterator[Link]:
    database = Database(prepared.owner)
    link = database.connect()
    yield link
    link.close()
    database.close()


def held(link: Link) -> int:
    ((count,),) = link.execute("SELECT count(*) FROM pg_prepared_statements").fetchall()
    return int(count)


def test_a_statement_is_prepared_once(link: Link) -> None:
    for number in range(5):
        assert link.run("SELECT $1::bigint + 1", [number]) == [(number + 1,)]
    assert held(link) == 1


def test_the_one_used_longest_ago_makes_room(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_PREPARED", 3)
    for round_ in range(2):
        for number in (1, 2, 1, 3, 1, 4, 1, 5):
            assert link.run(f"SELECT {number}::int, $1::int", [round_]) == [(number, round_)]
    assert held(link) == 3
    kept = {row[0] for row in link.execute("SELECT statement FROM pg_prepared_statements").fetchall()}
    assert "SELECT 1::int, $1::int" in kept, "it was used all the time"


@pytest.mark.parametrize("before", ["DROP TABLE scratch", "ALTER TABLE scratch ADD other text", "ROLLBACK"])
def test_statements_outlive_what_makes_the_driver_drop_its_own(link: Link, before: str) -> None:
    link.execute("CREATE TEMP TABLE scratch (id int)")
    assert link.run("SELECT $1::int", [1]) == [(1,)]
    for _ in range(10):  # as often as makes the driver prepare one
        link.execute("SELECT 1")
    if before == "ROLLBACK":
        link.execute("BEGIN")
    link.execute(before)
    assert link.run("SELECT $1::int", [2]) == [(2,)]


def test_whatever_goes_in_comes_out(link: Link) -> None:
    statement = "SELECT $1::text, $2::bigint, $3::float8, $4::bytea, $5::text, $6::boolean"
    given: list[Parameter] = ["'\"\\%s é😀", -(2**63), 0.1, b"\0\xff'", None, True]
    for binary in (False, True):
        assert link.run(statement, given, binary=binary) == [tuple(given)]
    assert link.run_named("SELECT $1::text AS name, 2 AS two", ["Ada"]) == [{"name": "Ada", "two": 2}]
    assert link.run("SET LOCAL lock_timeout = 5") == []


@pytest.mark.parametrize("value", ["nul\0", "\ud800", 2**63, -(2**63) - 1])
def test_what_cannot_be_stored_is_refused_before_it_is_sent(link: Link, value: str | int) -> None:
    with pytest.raises(ValueError, match=r"NUL|surrogates|64 bits"):
        link.run("SELECT $1::text", [value])
    assert link.run("SELECT $1::text", ["next"]) == [("next",)]


def test_the_servers_refusal_leaves_the_connection_usable(link: Link) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        link.run("SELECT 1 / $1::int", [0])
    with pytest.raises(psycopg.errors.SyntaxError):
        link.run("SELEC")
    assert link.run("SELECT 1 / $1::int", [1]) == [(1,)]


@pytest.mark.parametrize("in_pages", [True, False], ids=["pages", "old libpq"])
@pytest.mark.parametrize("rows", [0, 1, 199, 200, 201, 1000])
def test_pages_are_all_rows_in_their_order(
    link: Link, rows: int, in_pages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_IN_PAGES", in_pages)
    statement = "SELECT n, repeat('x', n::int), NULL::text FROM generate_series(1, $1::bigint) n"
    pages = list(link.pages(statement, [rows]))
    assert [row for page in pages for row in page] == [(n, "x" * n, None) for n in range(1, rows + 1)]
    sizes = [200] * (rows // 200) + [rows % 200] * (rows % 200 > 0)
    assert list(map(len, pages)) == (sizes if in_pages else [rows] * (rows > 0))
    assert link.run("SELECT $1::int", [1]) == [(1,)]


def test_an_error_between_two_pages_leaves_the_connection_usable(link: Link) -> None:
    pages = link.pages("SELECT 1 / (300 - n) FROM generate_series(1, $1::bigint) n", [1000])
    assert len(next(pages)) == 200
    with pytest.raises(psycopg.errors.DivisionByZero):
        next(pages)
    assert link.run("SELECT $1::int", [1]) == [(1,)]


def test_more_than_a_socket_holds_goes_through(link: Link) -> None:
    text = "x" * 30_000_000
    assert link.run("SELECT $1::text", [text]) == [(text,)]


def test_an_interrupt_ends_a_statement_that_hangs(link: Link, prepared: TestDatabase) -> None:
    def interrupt() -> None:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        until(lambda: prepared.run(asked)[0][0] == 1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            link.run("SELECT pg_sleep(60)::text, $1::int", [1])
    finally:
        thread.join()
    assert time.monotonic() - began < 30
    assert link.run("SELECT $1::int", [3]) == [(3,)]
