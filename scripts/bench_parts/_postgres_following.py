"""Following the log on Postgres: tailing under eight writers, waking up, projecting, rebuilding."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.ports import EventStore
from nexus.projections.catalog import named
from nexus.projections.executions import Executions
from nexus.projections.follower import Follower
from nexus.projections.rebuild import rebuild
from nexus.projections.verify import verify
from scripts.bench_parts._measure import Row, none_wrong, percentile, summary
from scripts.bench_parts._postgres_crew import Writers, prepared
from scripts.bench_parts._stock_runner import boxes, fill, follow
from scripts.bench_parts._story import envelope, life, requested
from tests.support.postgres import Server

EVENTS: Final = int(os.environ.get("NEXUS_BENCH_EVENTS") or 40_000)
_STOCK_RUNS: Final = 750
_LIVES: Final = 2000
"""Runs of each sandbox of the log that is rebuilt."""


# --- tailing ---------------------------------------------------------------------------------------------------------
class Tail(threading.Thread):
    """A reader that asks for what follows the last event that it has seen, until it is told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._store = PostgresStore(url)
        self.seen: list[int] = []
        self.stop = threading.Event()
        self.start()

    def run(self) -> None:
        last = 0
        while True:
            ending = self.stop.is_set()
            page = self._store.raw(last, 5000)
            self.seen.extend(row[0] for row in page)
            if page:
                last = page[-1][0]
            elif ending:
                break
            else:
                self._store.wait(last, 0.2)
        self._store.close()


def _tailing(server: Server) -> list[Row]:
    """Two readers tail the log while eight processes append, one event per transaction."""
    with ExitStack() as stack:
        database = stack.enter_context(prepared(server))
        writers = Writers(stack, database.owner, 8)
        tails = [Tail(database.application) for _ in range(2)]
        for tail in tails:
            stack.callback(tail.stop.set)
        began = time.perf_counter()
        writers.do("pour", max(EVENTS // 8, 1))()
        took = time.perf_counter() - began
        time.sleep(0.1)
        for tail in tails:
            tail.stop.set()
            tail.join()
        stored = [position for (position,) in database.run("SELECT position FROM events ORDER BY position")]
    wrong = 0
    for tail in tails:
        wrong += len(set(stored) - set(tail.seen)) + abs(len(tail.seen) - len(set(tail.seen)))
        wrong += sum(later <= earlier for earlier, later in zip(tail.seen, tail.seen[1:], strict=False))
    name = "tailing under 8 writers, 2 readers: events missed, double or out of order"
    return [none_wrong(name, wrong, len(stored), took * 1000)]


# --- waking up -------------------------------------------------------------------------------------------------------
def _waking(server: Server) -> list[Row]:
    """From the return of an append to the return of another process's `wait`."""
    with ExitStack() as stack:
        database = stack.enter_context(prepared(server))
        writer, reader = (PostgresStore(database.application) for _ in range(2))
        stack.callback(writer.close)
        stack.callback(reader.close)
        reader.wait(0, 0.2)
        delays = [_wake_up(writer, reader, number) for number in range(220)]
    return [percentile("wake-up of a waiting reader, 95th percentile", delays[20:], 95, 10.0)]


def _wake_up(writer: PostgresStore, reader: PostgresStore, number: int) -> float:
    head, told = reader.head(), 0.0

    def wait() -> None:
        nonlocal told
        if not reader.wait(head, 10):
            raise RuntimeError("the reader was never told")
        told = time.perf_counter()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.01 + number % 7 * 0.003)  # it waits by now; at no fixed place in its looks
    writer.append([envelope(f"sandbox-{number:032x}", 1, requested(f"sb_{number:032x}"))])
    appended = time.perf_counter()
    waiting.join()
    return (told - appended) * 1000


# --- projecting ------------------------------------------------------------------------------------------------------
def _projecting(server: Server) -> list[Row]:
    """The table of executions, ours against the stock runner's; milliseconds are those of 1,000 events."""
    with ExitStack() as stack:
        database = stack.enter_context(prepared(server))
        theirs = stack.enter_context(server.database(migrated=False))
        app = stack.enter_context(boxes(theirs.owner))
        store = PostgresStore(database.owner)
        stack.callback(store.close)
        last = fill(app, _STOCK_RUNS)[1]
        _fill(store, EVENTS)
        for filled in (theirs, database):  # or the server does so while something is measured
            for after_filling in ("VACUUM (ANALYZE)", "CHECKPOINT"):
                filled.run(after_filling)
        follow(theirs.owner, last)
        live, again, inline, wrong, most = [], [], [], 0, 0
        for _ in range(9 if EVENTS <= 100_000 else 1):
            theirs.run("DROP TABLE executions, runsprojection_tracking")
            stock = follow(theirs.owner, last) / last * 1e6
            live.append((_live(store, min(EVENTS, 40_000)), stock))
            torn, reads, took = _rebuild_under_readers(store, database.application)
            again.append((took, stock))
            wrong, most = wrong + torn, most + reads
            inline.append((_rebuilt(store, "sandboxes"), stock))
        for name in ("executions", "sandboxes"):
            wrong += 0 if verify(store, named(name)).is_equal else 1
    return [
        summary("times as fast", "project live / the stock runner, per 1,000 events", live, 40.0),
        summary("times as fast", f"rebuild executions from {EVENTS:,} events / the stock runner", again, 150.0),
        summary("times as fast", f"rebuild sandboxes from {EVENTS:,} events / the stock runner", inline, 150.0),
        none_wrong("rebuild: reads that failed or were torn meanwhile, and rows unlike a replay's", wrong, most, 0.0),
    ]


def _fill(store: PostgresStore, events: int) -> None:
    written = 0
    while written < events:
        some = [one for one, _ in life(min(_LIVES, max(1, (events - written) // 2)))]
        for begin in range(0, len(some), 1000):
            store.append(some[begin : begin + 1000])
        written += len(some)


def _live(store: EventStore, events: int) -> float:
    """Milliseconds per 1,000 events of a follower that starts with an empty view, page by page as a worker does."""
    store.views.begin(Executions.tables, "executions:1")
    follower, taken = Follower(store, Executions()), 0
    began = time.perf_counter()
    while taken < events and (step := follower.step()):
        taken += step
    took = time.perf_counter() - began
    while follower.step():
        pass
    return took / taken * 1e6


def _rebuild_under_readers(store: EventStore, url: str) -> tuple[int, int, float]:
    """Failed or torn reads, how many there were, and milliseconds per 1,000 events."""
    stop, count = threading.Event(), "SELECT count(*) AS n, count(finished_at) AS ended FROM executions"
    whole, reader = store.views.query(count), PostgresStore(url)

    def read() -> tuple[int, int]:
        wrong, reads = 0, 0
        while not stop.wait(0.2):
            try:
                wrong += reader.views.query(count) != whole
            except Exception:  # noqa: BLE001 - whatever it is, a reader noticed the rebuild
                wrong += 1
            reads += 1
        return wrong, reads

    with ThreadPoolExecutor(1) as pool:
        reader.views.query(count)  # its connection is no part of a rebuild
        reading = pool.submit(read)
        try:
            took = _rebuilt(store, "executions")
        finally:
            stop.set()
        wrong, reads = reading.result()
    reader.close()
    return wrong, reads, took


def _rebuilt(store: EventStore, name: str) -> float:
    began = time.perf_counter()
    done = rebuild(store, named(name))
    return (time.perf_counter() - began) / done.events * 1e6


AREAS: Final = {"tail": _tailing, "wake": _waking, "project": _projecting}
