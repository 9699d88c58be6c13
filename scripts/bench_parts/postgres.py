"""The Postgres event store against plain psycopg and against the event sourcing library as it comes.

On a server of its own that writes everything to disk (fsync), on a unix socket. Writers are processes of their own.
`NEXUS_BENCH_EVENTS=1000000` makes the logs of the tailing and of the rebuild that long (several minutes);
`NEXUS_BENCH_AREA` picks one of append, tail, wake, project and replay.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydantic import TypeAdapter

from nexus.adapters.clock import MonotonicClock
from nexus.adapters.identity import ProcessOrigin
from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.ports import Snapshot
from nexus.domain.sandbox import Sandbox, fold, sandbox_id_of
from nexus.engine.streams import SNAPSHOT_EVERY, SNAPSHOT_SCHEMA, Streams
from scripts.bench_parts import _postgres_following
from scripts.bench_parts._measure import Row, compare, compare_speed
from scripts.bench_parts._postgres_crew import Writers, prepared
from scripts.bench_parts._postgres_writer import TABLE
from scripts.bench_parts._stock_runner import boxes, fill
from scripts.bench_parts._story import life
from tests.support.postgres import OWNER, Server, private_server


def rows() -> list[Row]:
    areas = {"append": _appending, **_postgres_following.AREAS, "replay": _replaying}
    wanted = os.environ.get("NEXUS_BENCH_AREA")
    with private_server(shared_buffers="128MB", max_wal_size="4GB") as server:
        return [row for name, area in areas.items() if wanted in (None, name) for row in area(server)]


# --- appending -------------------------------------------------------------------------------------------------------
def _appending(server: Server) -> list[Row]:
    found: list[Row] = []
    for count, turns, each, bars in ((1, 300, 20, (0.8, 0.6, 0.85)), (8, 60, 12, (0.7, 0.45, None))):
        with ExitStack() as stack:
            database = stack.enter_context(prepared(server))
            database.run(TABLE, user=OWNER)
            writers = Writers(stack, database.owner, count)
            found += _of(writers, "1 writer" if count == 1 else f"{count} writers", turns, each, bars)
    return found


def _of(writers: Writers, who: str, turns: int, each: int, bars: tuple[float, float, float | None]) -> list[Row]:
    """Each measurement is so many acts of each writer, all writers at the same time."""
    writers.do("prepare", each)()
    for act in ("append", "listed", "save", "command", "raw"):
        writers.do(act, each)()

    def compared(name: str, act: str, other: str, bar: float | None) -> Row:
        writers.do("prepare", each * (turns + 3))()
        return compare_speed(name, writers.do(act, each), writers.do(other, each), turns, bar)

    against = f"{who} / the same INSERT in psycopg"
    return [
        compared(f"append one event, {against}", "append", "raw", bars[0]),
        compared(f"decide, fold, append, {against}", "save", "raw", bars[1]),
        compared(f"a whole command (load, decide, append, rows), {against}", "command", "raw", None),
        compared(f"append with list and due rows, {who} / without", "listed", "append", bars[2]),
    ]


# --- replaying -------------------------------------------------------------------------------------------------------
def _replaying(server: Server) -> list[Row]:
    with ExitStack() as stack:
        theirs = stack.enter_context(server.database(migrated=False))
        ours = stack.enter_context(prepared(server))
        app = stack.enter_context(boxes(theirs.owner))
        box, _ = fill(app, 5000, per_box=5000)
        store = PostgresStore(ours.application)
        stack.callback(store.close)
        stream = store.append([one for one, _ in life(2000)])[0].originator_id
        long, short = (_sandbox_with(store, events) for events in (10_000, 100))

        def replay_theirs(upto: int) -> None:
            app.repository.get(box, version=upto)

        def load(sandbox_id: str) -> None:
            Streams(store, MonotonicClock(), ProcessOrigin("bench")).get(sandbox_id)

        return [
            compare_speed(
                "replay 4,002 events / the library's decorators",
                lambda: fold(None, store.history(stream)),
                lambda: replay_theirs(4002),
                11,
                5.0,
            ),
            compare(
                "load a sandbox with 10,000 events / with 100",
                lambda: load(long),
                lambda: load(short),
                200,
                2.0,
            ),
        ]


def _sandbox_with(store: PostgresStore, events: int) -> str:
    """A sandbox whose stream has so many events and, like the engine's, a snapshot now and then."""
    states = TypeAdapter(Sandbox)
    envelopes, last = [], 0
    for envelope, state in life(events // 2 - 1):
        envelopes.append(envelope)
        if envelope.originator_version % SNAPSHOT_EVERY == 0:
            store.append(
                envelopes,
                snapshots=[Snapshot(envelope.originator_id, state.version, SNAPSHOT_SCHEMA, states.dump_json(state))],
            )
            envelopes = []
        last = envelope.originator_version
    if envelopes:
        store.append(envelopes)
    assert last == events
    return str(sandbox_id_of(envelope.originator_id))
