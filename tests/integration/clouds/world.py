"""One sandbox for each operation, on the real engine over a real store and a loopback cloud."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Final

from nexus import config
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.errors import NexusError
from nexus.domain.policies import Limits
from nexus.domain.provider import Provider
from nexus.domain.sandbox import Sandbox, stream_id
from nexus.domain.values import SandboxState
from nexus.engine.recovery import Report
from nexus.engine.registry import Providers
from nexus.engine.service import Engine
from tests.integration.clouds.sides import Side
from tests.support.cloud.common import Fault
from tests.support.world import ADMIN, ANN, ShiftedStore, TestLiveness

Operation = Callable[[Engine, str], object]

CODE: Final = "echo -n x >> ran; for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.05; done"
"""Speaks several times, so that its stream can be cut in the middle, and tells how often it ran."""

OPERATIONS: Final[Mapping[str, Operation]] = {
    "create": lambda engine, name: engine.create(ANN, name, ttl_minutes=60),
    "run": lambda engine, name: engine.run(ANN, name, language="bash", code=CODE, timeout=2),
    "pause": lambda engine, name: engine.pause(ANN, name),
    "resume": lambda engine, name: engine.resume(ANN, name),
    "extend": lambda engine, name: engine.extend(ANN, name, 120),
    "stop": lambda engine, name: engine.stop(ANN, name),
    "read_file": lambda engine, name: b"".join(engine.read_file(ANN, name, "there")),
    "write_file": lambda engine, name: engine.write_file(ANN, name, "there", b"new"),
    "expire": lambda engine, name: engine.sweep(),
    "verify": lambda engine, name: engine.verify(ANN, name),
    "reconcile": lambda engine, name: engine.reconcile(ADMIN),
}


class HastyClock:
    """On which every wait takes a minute and no time, for each thread alone: whoever waits once tries once more."""

    def __init__(self) -> None:
        self._local = threading.local()

    def monotonic(self) -> float:
        return getattr(self._local, "now", 0.0)

    def sleep(self, seconds: float) -> None:
        self._local.now = self.monotonic() + 60


class World:
    """`attempt` carries operations out, each on the sandbox of its name, all at the same time."""

    def __init__(self, folder: Path, side: Side, fault: str) -> None:
        """`fault` is what is going to strike."""
        self.folder = folder
        self.side = side
        # An answer is lost with its connection, and so are those of everybody who shares it: one after the other.
        self._at_once = 1 if fault == Fault.ANSWER_LOST else 16
        self.store = ShiftedStore(SQLiteStore(folder / "nexus.db"))
        self._engines: list[Engine] = []
        self.well = self._worker("maker", side.provider())
        self.sufferer = self._worker("sufferer", side.provider(fault))
        self.ids: dict[str, str] = {}

    def _worker(self, name: str, provider: Provider) -> Engine:
        settings = config.load(env={}, file=None, data_dir=self.folder, sandbox_provider=provider.name, user="ann")
        liveness = TestLiveness(name)
        liveness.dead = {"maker", "sufferer"} - {name}
        engine = Engine(
            self.store, Providers(settings, given=[provider]), liveness, HastyClock(), limits=Limits(orphan_grace=0)
        )
        self._engines.append(engine)
        return engine

    def populate(self, operations: Iterable[str]) -> None:
        """A sandbox for each operation but `create`, in the state that the operation needs. Whoever is to suffer has
        used it before, so that it need not connect first."""

        def make(operation: str) -> None:
            ttl = 1 if operation == "expire" else 60
            self.ids[operation] = self.well.create(ANN, operation, ttl_minutes=ttl).sandbox_id
            self.well.write_file(ANN, operation, "there", b"old")
            if operation == "resume":
                self.well.pause(ANN, operation)
            elif operation in ("run", "read_file", "write_file"):
                self.sufferer.run(ANN, operation, language="bash", code="true")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(make, [operation for operation in operations if operation != "create"]))
        self.store.offset += timedelta(minutes=2)  # one has expired

    def attempt(self, operations: Iterable[str]) -> dict[str, tuple[str, str]]:
        """By operation: the error's name, and the events that were written, in order.

        A sweep and a reconcile raise nothing: they report. "-" stands for no error.
        """
        before = {operation: len(self.story(operation)) for operation in operations}

        def one(operation: str) -> str:
            try:
                answer = OPERATIONS[operation](self.sufferer, operation)
            except NexusError as error:
                return type(error).__name__
            return "reported" if isinstance(answer, Report) and answer.problems else "-"

        with ThreadPoolExecutor(self._at_once) as pool:
            errors = dict(zip(before, pool.map(one, before), strict=True))
        if "create" in before:
            self.ids["create"] = self.well.queries.page(ANN, states=None, name="create").sandboxes[0].sandbox_id
        return {
            operation: (errors[operation], " ".join(self.story(operation)[before[operation] :]) or "-")
            for operation in before
        }

    def story(self, operation: str) -> list[str]:
        """Names of the events of an operation's sandbox."""
        if operation not in self.ids:
            return []
        return [type(envelope.event).__name__ for envelope in self.store.load(stream_id(self.ids[operation]))]

    def state(self, operation: str) -> Sandbox:
        return self.well.streams.get(self.ids[operation])

    def states(self) -> dict[str, SandboxState]:
        return {operation: self.state(operation).state for operation in self.ids}

    def recover(self, times: int = 3) -> None:
        """What a fresh process does once the cloud is well: whoever had something in flight is dead to it. After so
        many reconciles at most, what exists is what the log says."""
        engine = self._worker("healer", self.side.provider())
        for _ in range(times):
            report = engine.reconcile(ADMIN)
            expected = self.expected()
            if not report.problems and self.side.existing() == expected:
                return
        assert report.problems == []
        assert self.side.existing() == expected

    def expected(self) -> set[str]:
        """Ids of the resources that should exist, by the log."""
        states = [self.state(operation) for operation in self.ids]
        return {self.side.held_by(s.ref) for s in states if s.ref is not None and s.state is not SandboxState.STOPPED}

    def close(self) -> None:
        for engine in self._engines:
            engine.providers.close()
        self.store.close()
