"""What proof and time travel cost: verifying against hashing alone, writing beside a sealer, the fleet as of a moment.

Verifying takes all processors and hashing alone takes one: on a machine that is busy with other things the figure
sinks. So it does with a shorter log, of which the start of other processes is a larger part. `NEXUS_BENCH_EVENTS` is
the length of the log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

from nexus.adapters.stores.postgres import PostgresReading, PostgresStore
from nexus.adapters.stores.sqlite import SQLiteReading, SQLiteStore
from nexus.domain.ports import EventStore, Reading
from nexus.domain.values import Principal
from nexus.engine.audit.canonical import GENESIS, canonical, leaf, link
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verifier import verify
from nexus.engine.history import History, Moment
from nexus.projections import TABLES
from nexus.projections.queries import SandboxQueries
from scripts.bench_parts._measure import Row, compare, compare_speed
from scripts.bench_parts._story import life
from tests.support.postgres import private_server

EVENTS: Final = int(os.environ.get("NEXUS_BENCH_EVENTS", "400000"))
_BATCH: Final = 1000
_SEALING: Final = 0.5
"""Seconds between two turns of the sealer, many times as often as a worker's."""


def rows() -> list[Row]:
    # All of the log fits into the server's memory, as it does into that of who hashes alone.
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder, private_server(shared_buffers="1GB") as server:
        home = Path(folder)
        with server.database() as database:
            _fill(SQLiteStore(home / "log.db", tables=TABLES), EVENTS)
            _fill(PostgresStore(database.owner), EVENTS)
            for after_filling in ("VACUUM (ANALYZE)", "CHECKPOINT"):  # or it does so while something is measured
                database.run(after_filling)
            return [
                _verifying("SQLite", partial(SQLiteReading, home / "log.db"), EVENTS),
                _verifying("Postgres", partial(PostgresReading, database.owner), EVENTS),
                _sealing(home),
                _fleet(home),
            ]


# --- verifying -------------------------------------------------------------------------------------------------------
def _fill(store: EventStore, count: int) -> None:
    """Write and seal so many events. Closes the store: an auditor's process has none, nor its threads."""
    with closing(store):
        gathered = []
        for envelope, _ in life(count // 2):
            gathered.append(envelope)
            if len(gathered) == _BATCH:
                store.append(gathered)
                gathered = []
        store.append(gathered)
        Sealer(store).catch_up()


def _verifying(name: str, open_reading: Callable[[], Reading], count: int) -> Row:
    """Hashing alone: the very bytes that a verifier hashes, all in memory, one call of hashlib for each piece.

    Of an event these are its payload, its form, and its link of the chain. Nothing is read, written, joined or compared
    meanwhile. Its time is taken over a part of the log and scaled up.
    """
    with closing(open_reading()) as reading:
        part = list(islice(LogEvidence(reading).events(), count // 8))
        pieces: list[bytes] = []
        head = GENESIS
        for event in part:
            payload, form, position = event[6], canonical(event).encode(), b"%d" % event[0]
            pieces += [payload, form + sha256(payload).digest(), head + leaf(event) + position]
            head = link(head, event[0], leaf(event))

        def hashing() -> None:
            for _ in range(8):
                for piece in pieces:
                    sha256(piece).digest()

        def verifying() -> None:
            verdict = verify(LogEvidence(reading))
            if not verdict.intact or verdict.seals < count:
                raise RuntimeError(f"{verdict.findings[:3]} among {verdict.seals} seals")

        row = compare_speed(f"verify {count:,} events, {name} / hashlib alone", verifying, hashing, 15, 0.5, warm_up=1)
    row["note"] = f"{count / row['ours_ms'] * 1000:,.0f} events/s"
    return row


# --- sealing ---------------------------------------------------------------------------------------------------------
@contextmanager
def _sealer(file: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "scripts.bench_parts._sealing", str(file), str(_SEALING)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        sealed, _ = process.communicate()
    if process.returncode or int(sealed) == 0:
        raise RuntimeError("the sealer beside the writers did not seal")


def _sealing(home: Path) -> Row:
    """Two stores, one of them sealed by another process meanwhile; a measurement is 300 appends, one by one."""
    beside, alone = (SQLiteStore(home / f"{name}.db", tables=TABLES) for name in ("beside", "alone"))
    events = [life(10_000) for _ in range(2)]

    def append(store: SQLiteStore, number: int) -> None:
        for _ in range(300):
            store.append([next(events[number])[0]])

    with _sealer(home / "beside.db"):
        name = f"300 appends, a sealer beside every {_SEALING:g} s / none"
        row = compare(name, partial(append, beside, 0), partial(append, alone, 1), 24, 1.1)
    beside.close()
    alone.close()
    return row


# --- as of -----------------------------------------------------------------------------------------------------------
def _fleet(home: Path) -> Row:
    """The list as of the log's end against reading the log: folding 10,000 sandboxes must not cost more than that."""
    store = SQLiteStore(home / "fleet.db", tables=TABLES)
    for _ in range(100):
        store.append([envelope for _ in range(100) for envelope, _ in life(3)])
    history, moment = History(store, SandboxQueries(store.views)), Moment(position=store.head())
    admin = Principal(user_id="root", is_admin=True)

    def fleet() -> None:
        if len(history.fleet(admin, moment, all_users=True)) != 10_000:
            raise RuntimeError("not the whole fleet")

    def read() -> None:
        after = 0
        while page := store.read(after, 5000):
            after = page[-1].position or 0

    row = compare(f"list 10,000 sandboxes as of a position, {store.head():,} events / read them", fleet, read, 5, 2.0)
    store.close()
    return row
