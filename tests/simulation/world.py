"""One simulated schedule: clients and workers on the real engine, chaos, then healing, then the invariants."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import patch
from uuid import UUID

from nexus.domain import errors
from nexus.domain.policies import Limits
from nexus.domain.pool import PoolPlan
from nexus.domain.values import Principal
from nexus.engine.registry import Providers
from nexus.engine.service import Engine
from tests.simulation.ports import OURS, STRANGERS, Faults, Resource, SimPool, SimProvider, SimStore, SimViews
from tests.simulation.scheduler import Dead, Process, Scheduler, Seed

LIMITS = Limits(create_deadline=60, operation_deadline=30, run_grace=5, orphan_grace=0)
NAMES = ("one", "one", "one", "two")
USERS = ("ann", "ann", "ann", "ann", "bob")
"""Few, so that clients get into each other's way."""
OPERATOR = Principal(user_id="operator", is_admin=True, is_system=True)
PLAN = PoolPlan("sim", {"default": 2}, total=2)
VIEWS = SimViews()


@dataclass
class Call:
    """What a client asked, and what it was told. `agent` marks the events that the call recorded."""

    agent: str
    command: str
    key: str | None = None
    answer: Any = None
    error: BaseException | None = None


@dataclass
class Effect:
    """What a provider did, and how far the log was at that moment."""

    kind: str
    sandbox_id: str
    what: str
    head: int


class SimClock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic(self) -> float:
        return self._scheduler.now

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)


class SimLiveness:
    def __init__(self, process: Process, all_processes: dict[str, Process]) -> None:
        self.me = process.name
        self._all = all_processes

    def is_dead(self, holder: str) -> bool:
        known = self._all.get(holder)
        return known is not None and not known.alive


@dataclass
class Settings:
    sandbox_provider: str = "sim"


@dataclass
class World:
    """Everything that a schedule can look at afterwards."""

    seed: Seed
    scheduler: Scheduler = field(init=False)
    calls: list[Call] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    resources: dict[str, Resource] = field(default_factory=dict)
    executions: list[str] = field(default_factory=list)
    processes: dict[str, Process] = field(default_factory=dict)
    healed: bool = False

    def __post_init__(self) -> None:
        VIEWS.reset()
        self.scheduler = Scheduler(self.seed)
        self.random = self.scheduler.random
        rates = self.random.choice(((0.0, 0.0, 0.0), (0.0, 0.03, 0.03), (0.02, 0.05, 0.05), (0.01, 0.25, 0.4)))
        self.unreliable = rates[0] > 0
        """Whether the store may refuse an append."""
        self.faults = Faults(*rates, slowness=self.random.choice((1.0, 1.0, 25.0)))
        self.store = SimStore(self.scheduler, self.faults, VIEWS)
        self.survives = self.random.random() < 0.6
        # Decided apart: the schedules without a pool are what they were before there was one.
        self.plan = PLAN if random.Random(f"pool-{self.seed!r}").random() < 0.25 else None
        self.resources["stranger"] = Resource("stranger", "sb_" + "f" * 32, STRANGERS, 1, "running")

    # --- making processes ---------------------------------------------------------------------------------------
    def process(self, name: str) -> Process:
        process = Process(f"{name}-{len(self.processes)}")
        self.processes[process.name] = process
        return process

    def engine(self, process: Process) -> Engine:
        provider = (SimPool if self.plan else SimProvider)(
            self.scheduler,
            self.faults,
            self.store,
            self.resources,
            self.executions,
            self._watch,
            survives=self.survives,
        )
        return Engine(
            self.store,
            Providers(Settings(), given=[provider]),
            SimLiveness(process, self.processes),
            SimClock(self.scheduler),
            limits=LIMITS,
            pool=self.plan,
            origin=lambda: f"python@sim:{int(process.name.rpartition('-')[2])}",
        )

    def _watch(self, kind: str, sandbox_id: str, what: str) -> None:
        self.effects.append(Effect(kind, sandbox_id, what, self.store.head()))

    # --- tasks --------------------------------------------------------------------------------------------------
    def client(self, engine: Engine, number: int, commands: int) -> None:
        """Ask for this and that, and remember what was told."""
        for step in range(commands):
            call = Call(agent=f"call-{number}-{step}-{len(self.calls)}", command=self._choose())
            self.calls.append(call)
            principal = Principal(user_id=self.random.choice(USERS), agent_id=call.agent)
            name = self.random.choice(NAMES)
            try:
                call.answer = self._ask(engine, principal, call, name)
            except (errors.NexusError, Dead) as error:
                call.error = error
                if isinstance(error, Dead):
                    raise
            self.scheduler.sleep(self.random.random() ** 3 * 20)

    def _choose(self) -> str:
        return self.random.choices(
            ("create", "get_or_create", "run", "pause", "resume", "stop", "extend"), (5, 4, 8, 4, 4, 3, 1)
        )[0]

    def _ask(self, engine: Engine, principal: Principal, call: Call, name: str) -> Any:
        if call.command == "create":
            call.key = self.random.choice((None, "key-0", "key-1"))
            return engine.create(principal, name, ttl_minutes=self.random.choice((1, 1, 60)), idempotency_key=call.key)
        if call.command == "run":
            return engine.run(principal, name, code="code", timeout=self.random.choice((5, 30, 200, 200)))
        if call.command == "extend":
            return engine.extend(principal, name, self.random.choice((1, 10)))
        more = {"ttl_minutes": self.random.choice((1, 1, 60))} if call.command == "get_or_create" else {}
        return getattr(engine, call.command)(principal, name, **more)

    def sweeper(self, engine: Engine) -> None:
        """A worker: sweep often, reconcile now and then."""
        while not self.healed:
            with contextlib.suppress(errors.NexusError):
                if self.plan is not None and self.random.random() < 0.5:
                    engine.pool.tend()
                if self.random.random() < 0.5:
                    engine.reconcile(OPERATOR)
                else:
                    engine.sweep()
            self.scheduler.sleep(1 + self.random.random() * 20)

    def chaos(self, doomed: list[Process], replace: Callable[[], None]) -> None:
        """What happens to machines and behind our back."""
        for _ in range(self.random.randrange(14)):
            self.scheduler.sleep(self.random.random() ** 2 * 30)
            what = self.random.randrange(6)
            living = [process for process in doomed if process.alive]
            ours = [r for r in self.resources.values() if r.installation == OURS and not r.snapshot]
            if what <= 1 and living:
                self.scheduler.kill(self.random.choice(living))
                replace()
            elif what == 2:
                self.store.jump += timedelta(seconds=self.random.choice((30, 300, 3600 * 8)))
            elif ours:
                resource = self.random.choice(ours)
                if what == 3:
                    self._watch("vanish", resource.sandbox_id, resource.id)
                    self.resources.pop(resource.id, None)
                elif what == 4:
                    resource.condition = "paused" if resource.condition == "running" else "running"
                else:
                    resource.incarnation += 1

    # --- the schedule -------------------------------------------------------------------------------------------
    def play(self, switches: int) -> None:
        """Chaos for a while, then fine weather and three reconciles."""
        api = [self.process("api") for _ in range(2)]
        workers = [self.process("worker") for _ in range(2)]
        for number in range(4):
            process = api[number % len(api)]
            engine = self.engine(process)
            self.scheduler.spawn(f"client-{number}", process, partial(self.client, engine, number, 6))
        for process in workers:
            engine = self.engine(process)
            self.scheduler.spawn(process.name, process, partial(self.sweeper, engine))

        def replace() -> None:
            process = self.process("late")
            engine = self.engine(process)
            self.scheduler.spawn("late", process, partial(self.client, engine, 9, 4))

        chaotic = self.process("chaos")
        self.scheduler.spawn("chaos", chaotic, partial(self.chaos, [*api, *workers], replace))
        self.scheduler.run(switches)
        self.heal()

    def heal(self) -> None:
        """Stop what is going on as a power cut would, wait out every deadline, and reconcile three times."""
        self.healed = True
        for process in list(self.processes.values()):
            self.scheduler.kill(process)
        self.faults.clear()
        process = self.process("healer")
        engine = self.engine(process)

        def reconcile() -> None:
            for _ in range(3):
                self.scheduler.sleep(LIMITS.create_deadline + 40)
                engine.reconcile(OPERATOR)

        self.scheduler.spawn("healer", process, reconcile)
        if not self.scheduler.run(50_000):
            self.scheduler.errors.append("the healer did not come to an end")


@contextlib.contextmanager
def simulated(seed: Seed, switches: int = 400) -> Iterator[World]:
    """Play one schedule with every id and every random number drawn from the seed."""
    ids = random.Random(f"ids-{seed!r}")

    def uuid() -> UUID:
        return UUID(int=ids.getrandbits(128), version=4)

    random.seed(seed)
    world = World(seed)
    with (
        patch("nexus.engine.creation.uuid4", uuid),
        patch("nexus.engine.executions.uuid4", uuid),
        patch("nexus.engine.pool.members.uuid4", uuid),
        patch("nexus.engine.streams.new_id", lambda: f"{ids.getrandbits(128):032x}"),
    ):
        try:
            world.play(switches)
            yield world
        finally:
            world.scheduler.close()
