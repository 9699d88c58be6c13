"""Several processes on one file: starting at once, appending at once, killed at any moment."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nexus
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.testing.store_contract.base import PETS, envelope, everything, new_stream, pet, pets, positions_of, stretch
from tests.integration.sqlite.processes import Say, children, may_fork

pytestmark = may_fork

STARTS = """
import sys
from pathlib import Path
from nexus.adapters.stores.sqlite import SQLiteStore
sys.stdin.readline()
print(SQLiteStore(Path(sys.argv[1])).installation)
"""


def append_on(file: Path, stream: str, appends: int, say: Say) -> None:
    """Appends one or two events at a time, with a row that sums them up, and says their positions afterwards."""
    store = SQLiteStore(file, tables=[PETS])
    last = store.last(stream)
    version = last.originator_version if last else 0
    for turn in range(appends):
        batch = stretch(stream, version + 1, version + 1 + turn % 2)
        version += len(batch)
        placed = store.append(batch, rows=[pet(stream, version=version)])
        say(" ".join(str(one.position) for one in placed))
    store.close()


def numbers(line: str) -> list[int]:
    return [int(word) for word in line.split()]


def test_programs_that_start_together_on_a_fresh_home_agree(tmp_path: Path) -> None:
    file = tmp_path / "home" / "data" / "nexus.db"
    environment = os.environ | {"PYTHONPATH": str(Path(nexus.__file__).parents[1])}
    command = [sys.executable, "-c", STARTS, str(file)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) for _ in range(4)]
    try:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        found = {process.communicate()[0] for process in started}
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * 4
    assert len(found) == 1


def test_eight_processes_make_one_store(tmp_path: Path) -> None:
    """All tables, one installation and WAL, however the starts fall together."""
    for number in range(25):
        file = tmp_path / f"home-{number}" / "data" / "nexus.db"

        def start(_number: int, say: Say, file: Path = file) -> None:
            store = SQLiteStore(file, tables=[PETS])
            (placed,) = store.append([envelope(new_stream(), 1)], rows=[pet(new_stream())])
            say(f"{store.installation} {placed.position}")
            store.close()

        with children(8, start) as started:
            told = [line.split() for child in started for line in child.lines()]
            assert [child.exit_code() for child in started] == [0] * 8
        assert len({installation for installation, _ in told}) == 1
        assert sorted(int(position) for _, position in told) == list(range(1, 9))
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_eight_processes_appending_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "nexus.db"
    streams = [new_stream() for _ in range(8)]
    with children(8, lambda number, say: append_on(file, streams[number], 100, say)) as writers:
        told = [[numbers(line) for line in writer.lines()] for writer in writers]
        assert [writer.exit_code() for writer in writers] == [0] * 8
    store = SQLiteStore(file, tables=[PETS])
    stored = everything(store)
    assert sorted(one for appends in told for append in appends for one in append) == positions_of(stored)
    assert len(stored) == 8 * 150
    for stream, appends in zip(streams, told, strict=True):
        loaded = store.load(stream)
        assert [one.originator_version for one in loaded] == list(range(1, 151))
        assert positions_of(loaded) == [one for append in appends for one in append]
    assert {row["pet_id"]: row["version"] for row in pets(store)} == dict.fromkeys(streams, 150)
    store.close()


def test_what_was_acknowledged_outlives_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Thirty rounds of three writers, each ended by SIGKILL in the midst of appending."""
    file = tmp_path / "nexus.db"
    chance = random.Random(20300101)
    streams = [new_stream() for _ in range(3)]
    told: list[list[int]] = []
    for _ in range(30):
        with children(3, lambda number, say: append_on(file, streams[number], 1_000_000, say)) as writers:
            for writer in writers:
                lines = writer.lines()
                told.extend(numbers(next(lines)) for _ in range(chance.randint(1, 8)))
                writer.kill()
                told.extend(map(numbers, lines))
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store = SQLiteStore(file, tables=[PETS])
    stored = everything(store)
    there = set(positions_of(stored))
    assert len(told) > 30 * 3
    assert all(position in there for append in told for position in append)
    for stream in streams:
        versions = [one.originator_version for one in store.load(stream)]
        assert versions == list(range(1, len(versions) + 1))
        (row,) = [row for row in pets(store) if row["pet_id"] == stream]
        assert row["version"] == versions[-1], "the row was written with the events that it sums up, or not at all"
    times = [one.recorded_at for one in stored if one.recorded_at is not None]
    assert times == sorted(times)
    store.close()
