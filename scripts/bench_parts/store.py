"""The SQLite event store against plain `sqlite3` and against the event sourcing library as it comes.

Everything is written with synchronous=FULL in WAL mode, on whatever disk holds the temporary folder.
"""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from nexus.adapters.stores.recording import EnvelopeMapper
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.adapters.stores.sqlite.recorder import _INSERT, _parameters
from nexus.domain import events as ev
from nexus.domain.sandbox import fold
from nexus.domain.values import to_text
from nexus.projections import TABLES, inline
from nexus.projections.catalog import named
from nexus.projections.executions import Executions
from nexus.projections.follower import Follower
from nexus.projections.queries import SandboxQueries
from nexus.projections.rebuild import rebuild
from scripts.bench_parts._library import Box, application, live
from scripts.bench_parts._measure import Row, compare, compare_speed
from scripts.bench_parts._story import NOW, life, run, steps

RAW = """
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, originator_id TEXT NOT NULL,
  originator_version INTEGER NOT NULL, topic TEXT NOT NULL, schema_version INTEGER NOT NULL, state BLOB NOT NULL,
  occurred_at TEXT NOT NULL, recorded_at TEXT NOT NULL, actor TEXT NOT NULL, tenant_id TEXT NOT NULL, agent_id TEXT,
  command TEXT NOT NULL, correlation_id TEXT NOT NULL, causation_id TEXT, origin TEXT NOT NULL,
  UNIQUE (originator_id, originator_version)
)
"""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder:
        home = Path(folder)
        return [*_appending(home), *_crowd(home), *_replaying(home), *_reading(home)]


# --- plain sqlite3 ---------------------------------------------------------------------------------------------------
def _raw(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(RAW.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    return connection


def _insert(connection: sqlite3.Connection, values: tuple[object, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_INSERT, values)
    connection.execute("COMMIT")


def _values(envelope: ev.Envelope) -> tuple[object, ...]:
    return _parameters(EnvelopeMapper().to_stored_event(envelope), to_text(NOW))


# --- appending -------------------------------------------------------------------------------------------------------
def _appending(home: Path) -> list[Row]:
    count = 600
    with ExitStack() as stack:
        store = SQLiteStore(home / "append.db", tables=TABLES)
        stack.callback(store.close)
        raw = stack.enter_context(closing(_raw(home / "raw.db")))
        plain = (envelope for envelope, _ in life(count))
        values = iter([_values(envelope) for envelope, _ in life(count)])
        bare = compare_speed(
            "append one event / the same INSERT in plain sqlite3",
            lambda: store.append([next(plain)]) and None,
            lambda: _insert(raw, next(values)),
            count,
            0.8,
        )
        with_rows = [([envelope], inline.rows(state, before)) for envelope, before, state in steps(count)]
        listed, unlisted = iter(with_rows), (envelope for envelope, _ in life(count))

        def append_listed() -> None:
            envelopes, written = next(listed)
            store.append(envelopes, rows=written)

        with_list = compare_speed(
            "append with list and due rows / without",
            append_listed,
            lambda: store.append([next(unlisted)]) and None,
            count,
            0.85,
        )
        app = application(home / "library-append.db")
        box = Box("bench")
        app.save(box)
        again = (envelope for envelope, _ in life(count))
        numbers = itertools.count()

        def save() -> None:
            box.start(f"ex_{next(numbers)}", "python", "0" * 64, 20, 30, NOW, "bench:1", NOW)
            app.save(box)

        stock = compare_speed(
            "append one event / the library's Application.save",
            lambda: store.append([next(again)]) and None,
            save,
            count,
        )
    return [bare, with_list, stock]


def _crowd(home: Path) -> list[Row]:
    """Eight writers, each on a connection of its own; one measurement is 25 appends of each."""
    writers, each, turns = 8, 25, 12
    stores = [SQLiteStore(home / "crowd.db") for _ in range(writers)]
    try:
        ours = [iter([envelope for envelope, _ in life((turns + 4) * each)]) for _ in range(writers)]
        theirs = [iter([_values(envelope) for envelope, _ in life((turns + 4) * each)]) for _ in range(writers)]

        def raw(number: int) -> None:
            with closing(_raw(home / "raw-crowd.db")) as connection:
                for values in itertools.islice(theirs[number], each):
                    _insert(connection, values)

        def append(number: int) -> None:
            for envelope in itertools.islice(ours[number], each):
                stores[number].append([envelope])

        return [
            compare_speed(
                "append, 8 writers / the same INSERT in plain sqlite3",
                lambda: _together(append, writers),
                lambda: _together(raw, writers),
                turns,
                0.7,
            )
        ]
    finally:
        for store in stores:
            store.close()


def _together(act: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=act, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- replaying -------------------------------------------------------------------------------------------------------
def _replaying(home: Path) -> list[Row]:
    app, box = application(home / "library-replay.db"), Box("bench")
    for number in range(5000):
        live(box, *run(number))
    app.save(box)
    store = SQLiteStore(home / "replay.db", tables=TABLES)
    try:
        stored = store.append([envelope for envelope, _ in life(5000)])
        stream = stored[0].originator_id

        def replay(upto: int, times: int) -> Callable[[], None]:
            def go() -> None:
                for _ in range(times):
                    fold(None, store.history(stream, upto=upto))

            return go

        def library(upto: int, times: int) -> Callable[[], None]:
            def go() -> None:
                for _ in range(times):
                    app.repository.get(box.id, version=upto)

            return go

        return [
            compare_speed("replay 100 events / the library's decorators", replay(100, 20), library(100, 20), 30, 5.0),
            compare_speed(
                "replay 10,000 events / the library's decorators", replay(10_000, 1), library(10_000, 1), 9, 5.0
            ),
            *_following(store),
        ]
    finally:
        store.close()


def _following(store: SQLiteStore) -> list[Row]:
    """The log of the replay above, projected anew each time; one at a time is what a stock runner does."""

    def follow(page: int, events: int) -> Callable[[], None]:
        def go() -> None:
            store.views.begin(Executions.tables, "executions:1")
            follower = Follower(store, Executions())
            for _ in range(events // page):
                follower.step(page)

        return go

    def again() -> None:
        rebuild(store, named("executions"))

    return [
        compare_speed("follow 2,000 events, pages of 1,000 / one by one", follow(1000, 2000), follow(1, 2000), 5, 20.0),
        compare("rebuild executions from 10,002 events / read them", again, lambda: store.read(0, 20_000) and None, 7),
    ]


# --- reading ---------------------------------------------------------------------------------------------------------
def _reading(home: Path) -> list[Row]:
    store = SQLiteStore(home / "read.db", tables=TABLES)
    try:
        for _ in range(300):
            envelope, state = next(life(0))
            store.append([envelope], rows=inline.rows(state))
        queries = SandboxQueries(store.views)
        plain = sqlite3.connect(home / "read.db")
        some = queries.live()[0]
        with closing(plain):
            return [
                compare(
                    "status of one sandbox / the same SELECT in plain sqlite3",
                    lambda: queries.get(some) and None,
                    lambda: plain.execute("SELECT * FROM sandboxes WHERE sandbox_id = ?", (some,)).fetchall() and None,
                    500,
                )
            ]
    finally:
        store.close()
