"""A database as `nexus migrate` leaves it, and the processes that write into it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nexus.adapters.stores.postgres import PostgresStore
from nexus.projections.projector import prepare
from tests.support.postgres import Server, TestDatabase

ROOT = Path(__file__).parents[2]


@contextmanager
def prepared(server: Server) -> Iterator[TestDatabase]:
    """A database as `nexus migrate` leaves it."""
    with server.database() as database:
        store = PostgresStore(database.owner)
        prepare(store)
        store.close()
        yield database


class Writers:
    """Processes that each do the same so many times, at the same time."""

    def __init__(self, stack: ExitStack, url: str, count: int) -> None:
        self._processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "scripts.bench_parts._postgres_writer", url],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            for _ in range(count)
        ]
        stack.callback(self.end)
        for process in self._processes:
            self._expect(process, "ready")

    def do(self, act: str, times: int) -> Callable[[], None]:
        def go() -> None:
            self.begin(act, times)
            self.finish()

        return go

    def begin(self, act: str, times: int) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{act} {times}\n")
            process.stdin.flush()

    def finish(self) -> None:
        for process in self._processes:
            self._expect(process, "done")

    def end(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()

    @staticmethod
    def _expect(process: subprocess.Popen[str], word: str) -> None:
        assert process.stdout is not None
        if (said := process.stdout.readline().strip()) != word:
            raise RuntimeError(f"a writer said {said!r} instead of {word!r}")
