"""A process that carries out one command and is killed at a named step of it: `python -m tests.support.victim …`.

Without a step to die at, it prints the steps that it passed, so that a test can kill it at every one of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from nexus import config
from nexus.adapters.clock import MonotonicClock
from nexus.adapters.identity import ProcessLiveness
from nexus.adapters.providers.docker.containers import Containers
from nexus.domain.policies import Limits
from nexus.domain.pool import PoolPlan
from nexus.domain.provider import Provider
from nexus.domain.values import Principal
from nexus.engine import wiring
from nexus.engine.registry import Providers
from nexus.engine.service import Engine
from nexus.engine.streams import no_steps
from nexus.testing import FakeCloud, FakePoolProvider

OWNER = Principal(user_id="victim")


class Steps:
    """Notes every step; ends the process, as kill -9 does, when the chosen one is passed."""

    def __init__(self, die_at: str | None) -> None:
        self.die_at = die_at
        self.passed: list[str] = []

    def __call__(self, name: str) -> None:
        count = sum(step.split("#")[0] == name for step in self.passed)
        step = f"{name}#{count}"
        self.passed.append(step)
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


class SteppedStore:
    """A store with a step before and after each append."""

    def __init__(self, store: Any, step: Steps) -> None:
        self._store = store
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, envelopes: Any, **more: Any) -> Any:
        self._step("append.before")
        placed = self._store.append(envelopes, **more)
        self._step("append.after")
        return placed


def make_engine(folder: Path, kind: str, database_url: str = "", step: Steps | None = None) -> Engine:
    """An engine on the installation in `folder`: provider `fake` (shared through files) or a built-in one."""
    settings = config.load(
        env={name: value for name, value in os.environ.items() if name != "NEXUS_CONFIG"},
        data_dir=folder,
        database_url=database_url or None,
        sandbox_provider=kind,
        user=OWNER.user_id,
    )
    given: list[Provider] = []
    if kind == "fake":
        given.append(FakePoolProvider(FakeCloud(folder / "cloud"), step=step))
    store: Any = wiring.open_store(settings)
    return Engine(
        SteppedStore(store, step) if step is not None else store,
        Providers(settings, given=given),
        ProcessLiveness(),
        MonotonicClock(),
        limits=Limits(orphan_grace=0),
        template=settings.template,
        pool=PoolPlan(kind, {"default": 1}, total=1),
        steps=step or no_steps,
    )


def carry_out(engine: Engine, command: str, mark: str) -> None:
    """One command on the sandbox named `target`, or on the pool. A run leaves a mark for each time that it runs."""
    if command == "fill":
        engine.pool.tend()
    elif command == "drain":
        engine.pool.drain(replace(OWNER, is_admin=True))
    elif command in ("create", "take"):
        engine.create(OWNER, "target", idempotency_key=f"key-{os.getpid()}")
    elif command == "run":
        engine.run(OWNER, "target", language="bash", code=f"echo ran >> {mark}; echo done", timeout=20)
    else:
        getattr(engine, command)(OWNER, "target")


def _step_before(kind: type[Any], method: str, step: Steps) -> None:
    """A step where a provider is half way through what it was asked for."""
    original = getattr(kind, method)

    def stepped(*given: Any) -> Any:
        step(f"docker.{method}")
        return original(*given)

    setattr(kind, method, stepped)


def main() -> None:
    folder, kind, url, command, mark, die_at = sys.argv[1:]
    step = Steps(die_at or None)
    if kind == "docker":
        _step_before(Containers, "rename", step)
    with make_engine(Path(folder), kind, url, step) as engine:
        step.passed.clear()
        carry_out(engine, command, mark)
        passed = list(step.passed)
    print(json.dumps(passed))


if __name__ == "__main__":
    main()
