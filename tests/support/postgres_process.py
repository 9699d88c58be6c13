"""Processes of one installation on Postgres: `python -m tests.support.postgres_process worker|api FOLDER URL …`.

They share a fake cloud in the folder. A worker works until SIGTERM; an API process gives commands for some seconds
and then prints what came of them. The file `ahead` in the folder moves every worker's clock forward, in seconds.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from nexus import config
from nexus.adapters.clock import MonotonicClock
from nexus.adapters.identity import ProcessLiveness
from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.errors import NexusError
from nexus.domain.policies import Limits
from nexus.domain.values import Principal
from nexus.engine.registry import Providers
from nexus.engine.service import Engine
from nexus.engine.worker import Schedule, Worker
from nexus.testing import FakeCloud, FakeProvider
from tests.support.world import ShiftedStore

ROOT = Path(__file__).parents[2]
USERS = ("ann", "bob", "cy")


class AheadStore(ShiftedStore):
    """A store whose clock is as far ahead as a file says."""

    def __init__(self, store: PostgresStore, file: Path) -> None:
        super().__init__(store)
        self._file = file

    def now(self) -> datetime:
        ahead = float(self._file.read_text()) if self._file.exists() else 0.0
        return self._store.now() + timedelta(seconds=ahead)


def make_engine(folder: Path, url: str) -> Engine:
    """An engine of this process, with a provider whose cloud all processes share."""
    settings = config.load(env={}, file=None, data_dir=folder, sandbox_provider="fake", user="ann")
    return Engine(
        AheadStore(PostgresStore(url), folder / "ahead"),  # delegates everything
        Providers(settings, given=[FakeProvider(FakeCloud(folder / "cloud"))]),
        ProcessLiveness(),
        MonotonicClock(),
        limits=Limits(orphan_grace=0),
    )


# --- the processes ---------------------------------------------------------------------------------------------------
def work(folder: Path, url: str, sweep: str, reconcile: str) -> None:
    with make_engine(folder, url) as engine:
        expired: list[str] = []
        schedule = Schedule(sweep=float(sweep), reconcile=float(reconcile))
        worker = Worker(engine, schedule, lambda report: expired.extend(report.expired))
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        print("ready", flush=True)
        worker.run()
        print(json.dumps(expired), flush=True)


def any_command(engine: Engine, chance: random.Random) -> Callable[[], object]:
    """A command of one of a few users on one of a few names."""
    user, name = Principal(user_id=chance.choice(USERS)), f"box-{chance.randrange(4)}"
    commands: list[Callable[[], object]] = [
        lambda: engine.create(user, name, ttl_minutes=chance.randrange(1, 5)),
        lambda: engine.create(user, name, idempotency_key=f"key-{chance.randrange(50)}"),
        lambda: engine.get_or_create(user, name),
        *[lambda: engine.run(user, name, code="1")] * 3,
        lambda: engine.pause(user, name),
        lambda: engine.resume(user, name),
        lambda: engine.extend(user, name, 5),
        lambda: engine.stop(user, name),
        lambda: engine.list(user),
        lambda: engine.status(user, name),
    ]
    return chance.choice(commands)


def give_commands(folder: Path, url: str, seconds: str, seed: str) -> None:
    """Commands of several users on a few names that all processes fight over."""
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    with make_engine(folder, url) as engine:
        print("ready", flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + float(seconds)
        while time.monotonic() < deadline:
            command = any_command(engine, chance)
            try:
                command()
                done["done"] += 1
            except NexusError as error:
                done[error.code] += 1
        print(json.dumps(done), flush=True)


# --- starting them ---------------------------------------------------------------------------------------------------
@contextmanager
def processes(commands: Sequence[Sequence[Any]]) -> Iterator[list[subprocess.Popen[str]]]:
    """One process per command, all of them ready and then told to begin; killed at the end at the latest."""
    with ExitStack() as stack:
        started = []
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.postgres_process", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started


def workers(folder: Path, url: str, count: int, *, sweep: float, reconcile: float) -> list[list[Any]]:
    """The commands for so many workers."""
    return [["worker", folder, url, sweep, reconcile]] * count


def last_line(process: subprocess.Popen[str]) -> Any:
    """What it tells at its end, which has to be a good one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert process.wait(60) == 0, (process.returncode, line)
    return json.loads(line)


if __name__ == "__main__":
    kind, home, *rest = sys.argv[1:]
    {"worker": work, "api": give_commands}[kind](Path(home), *rest)
