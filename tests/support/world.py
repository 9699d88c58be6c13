"""A whole engine over a real SQLite store and the fake cloud, with a clock and a liveness that a test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from nexus import config
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.events import CommandRefused, Envelope
from nexus.domain.policies import Limits
from nexus.domain.ports import EventStore
from nexus.domain.provider import Capabilities
from nexus.domain.sandbox import stream_id
from nexus.domain.values import Principal
from nexus.engine import wiring
from nexus.engine.registry import Providers
from nexus.engine.service import Engine
from nexus.testing import FakeCloud, FakeProvider

ANN = Principal(user_id="ann")
BOB = Principal(user_id="bob")
ADMIN = Principal(user_id="root", is_admin=True)


class ShiftedStore:
    """A store whose clock a test can move forward."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.offset = timedelta()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def now(self) -> datetime:
        return self._store.now() + self.offset


class TestLiveness:
    """Holders are names; a test says which of them are dead."""

    __test__ = False

    def __init__(self, me: str = "worker-1") -> None:
        self.me = me
        self.dead: set[str] = set()

    def is_dead(self, holder: str) -> bool:
        return holder in self.dead


class TestClock:
    """Time that passes only by sleeping, and then at once."""

    __test__ = False

    def __init__(self) -> None:
        self.slept = 0.0
        self.on_sleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.on_sleep()


class World:
    """One installation: `engine()` makes as many engines on it as a test has workers."""

    provider_kind: type[FakeProvider] = FakeProvider

    def __init__(
        self, folder: Path, capabilities: Capabilities | None = None, *, store: EventStore | None = None
    ) -> None:
        """`store` is that of another database than the embedded one."""
        self.folder = folder
        self.cloud = FakeCloud()
        self.liveness = TestLiveness()
        self.clock = TestClock()
        self.capabilities = capabilities
        self.store = ShiftedStore(store or SQLiteStore(folder / "nexus.db"))
        self.engine = self.worker("worker-1")

    def worker(self, name: str, **more: Any) -> Engine:
        """Another engine on the same store and cloud, as another process would have it."""
        liveness = TestLiveness(name)
        liveness.dead = self.liveness.dead
        provider = self.provider_kind(self.cloud, capabilities=self.capabilities, worker=name, **more.pop("fake", {}))
        settings = config.load(
            env={}, file=None, data_dir=self.folder, sandbox_provider="fake", user="ann", **more.pop("settings", {})
        )
        more.setdefault("keeping", wiring.keeping(settings, self.store.bodies))
        return Engine(
            self.store,
            Providers(settings, given=[provider]),
            liveness,
            self.clock,
            limits=Limits(orphan_grace=0),
            **more,
        )

    def kill(self, name: str) -> None:
        """From now on this worker's process counts as dead."""
        self.liveness.dead.add(name)

    def pass_time(self, **duration: float) -> None:
        self.store.offset += timedelta(**duration)

    def events(self, sandbox_id: str) -> list[Envelope]:
        envelopes: list[Envelope] = self.store.load(stream_id(sandbox_id))
        return envelopes

    def story(self, sandbox_id: str) -> list[str]:
        """Names of the sandbox's events, in order."""
        return [type(envelope.event).__name__ for envelope in self.events(sandbox_id)]

    @contextmanager
    def nothing_recorded(self) -> Iterator[None]:
        """Nothing of any sandbox. That a command was refused is no event of a sandbox."""
        before = self.store.head()
        yield
        recorded = [event.topic for event in self.store.read(before) if event.topic != CommandRefused.TOPIC]
        assert recorded == [], "something was recorded"

    def close(self) -> None:
        self.store.close()
