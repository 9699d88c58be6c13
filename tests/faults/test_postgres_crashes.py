"""The server crashes under writers, again and again: no acknowledged event is lost, none is stored twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.errors import StoreError
from nexus.testing.store_contract.base import everything, new_stream, positions_of
from tests.support.postgres import Server, TestDatabase, private_server

ROUNDS, WRITERS = int(os.environ.get("NEXUS_CRASH_ROUNDS", "6")), 4


@pytest.fixture
def database() -> Iterator[TestDatabase]:
    """In a server that writes everything to disk, as real ones do."""
    with private_server() as server, server.database() as database:
        yield database


class Follower(threading.Thread):
    """Tails the log through everything, as a projector does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._store = PostgresStore(url)
        self.stop = threading.Event()
        self.seen: list[int] = []
        self.start()

    def run(self) -> None:
        while True:
            last_round = self.stop.is_set()
            try:
                page = self._store.read(self.seen[-1] if self.seen else 0, 50)
                self.seen.extend(positions_of(page))
                if not page:
                    if last_round:
                        return
                    self._store.wait(self.seen[-1] if self.seen else 0, 0.1)
            except StoreError:
                self.stop.wait(0.02)

    def end(self) -> list[int]:
        self.stop.set()
        self.join(60)
        self._store.close()
        return self.seen


def test_crashes_under_load(database: TestDatabase) -> None:
    streams = [new_stream() for _ in range(WRITERS)]
    follower = Follower(database.application)
    with ExitStack() as stack:
        stack.callback(follower.end)
        writers = [_writer(stack, database, stream) for stream in streams]
        told: dict[str, list[list[str]]] = {stream: [] for stream in streams}
        readers = [
            threading.Thread(target=_note, args=(writer, told[stream]))
            for writer, stream in zip(writers, streams, strict=True)
        ]
        for reader in readers:
            reader.start()
        for number in range(ROUNDS):
            _until_all_go_on(told)
            _crash(database.server, signal.SIGQUIT if number % 3 else signal.SIGKILL)
        _until_all_go_on(told)
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        for writer, reader in zip(writers, readers, strict=True):
            reader.join(60)
            assert writer.wait(60) == 0
        store = PostgresStore(database.application)
        stack.callback(store.close)
        stored = everything(store)
        seen = follower.end()
    assert seen == positions_of(stored), "the follower missed nothing and got nothing twice"
    for stream in streams:
        log = {one.originator_version: one.position for one in stored if one.originator_id == stream}
        assert sorted(log) == list(range(1, len(log) + 1))
        for version, answer in told[stream]:
            assert answer not in ("conflict", "?"), "the server came back in time to tell"
            assert log[int(version)] == int(answer), "acknowledged, and gone or moved"
        assert len(log) - len(told[stream]) in (0, 1), "told refused, and stored"


def _writer(stack: ExitStack, database: TestDatabase, stream: str) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.postgres_appender", database.application, stream],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    stack.enter_context(writer)
    stack.callback(writer.kill)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def _note(writer: subprocess.Popen[str], told: list[list[str]]) -> None:
    assert writer.stdout is not None
    for line in writer.stdout:
        told.append(line.split())


def _until_all_go_on(told: dict[str, list[list[str]]]) -> None:
    """Every writer has been answered again, some times."""
    before = {stream: len(answers) for stream, answers in told.items()}
    pause = threading.Event()
    for _ in range(6000):
        if all(len(answers) >= before[stream] + 20 for stream, answers in told.items()):
            return
        pause.wait(0.01)
    raise AssertionError("a writer never went on")


def _crash(server: Server, how: signal.Signals) -> None:
    server.stop(how)
    server.start()
