"""Play schedules: `python -m tests.simulation.run --seed 17` replays one, `--first 0 --count 20000` plays many.

`--bytes 0af3…` replays one that Hypothesis has found, and shortened.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time

from tests.simulation import planted_pool
from tests.simulation.invariants import violations
from tests.simulation.planted import FAULTS
from tests.simulation.scheduler import Seed
from tests.simulation.world import simulated

__all__ = ["planted_pool"]
"""Imported to have its faults among the others."""


def check(seed: Seed) -> list[str]:
    """Play one schedule; what is wrong with it."""
    with simulated(seed) as world:
        return violations(world)


def first_violation(seeds: range) -> tuple[int, list[str]] | None:
    """The first schedule that goes wrong, and how."""
    for seed in seeds:
        found = check(seed)
        if found:
            return seed, found
    return None


def first_violation_of(seeds: range, processes: int) -> tuple[int, list[str]] | None:
    """The same in several processes, each of which plays every so-manieth schedule."""
    shares = [seeds[number::processes] for number in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return next((found for found in pool.map(first_violation, shares) if found is not None), None)


def found_within() -> dict[str, int]:
    """Planted fault → how many schedules it took to find it. Raises where a hundred do not."""
    needed = {}
    for name, fault in sorted(FAULTS.items()):
        with fault():
            needed[name] = 1 + next(seed for seed in range(100) if goes_wrong(seed))
    return needed


def goes_wrong(seed: Seed) -> bool:
    """A planted fault may also make the engine itself stumble; a `TypeError` is one that does not fit its place."""
    try:
        return bool(check(seed))
    except TypeError:
        raise
    except Exception:
        return True


def tell(seed: Seed) -> None:
    """Print the whole story of a schedule."""
    with simulated(seed) as world:
        for envelope in world.store.log:
            print(envelope.position, envelope.occurred_at, envelope.actor, envelope.originator_id[:14], envelope.event)
        for effect in world.effects:
            print("effect", effect)
        for call in world.calls:
            print("call", call.agent, call.command, repr(call.error or call.answer)[:150])
        print("resources", world.resources)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this schedule and print its story")
    parser.add_argument("--bytes", type=bytes.fromhex, help="replay what these decide, and print its story")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--planted", action="store_true", help="count the schedules that find each planted fault")
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # of what the seed refuses there is a lot
    if given.planted:
        needed = found_within()
        print(f"counted: {len(needed)} (within {max(needed.values())} schedules each)")
        return 0
    if given.bytes is not None:
        tell(given.bytes)
        wrong = check(given.bytes)
        print(*wrong, sep="\n")
        return int(bool(wrong))
    if given.seed is not None:
        tell(given.seed)
    seeds = (
        range(given.seed, given.seed + 1) if given.seed is not None else range(given.first, given.first + given.count)
    )
    began = time.monotonic()
    found = first_violation(seeds) if given.processes == 1 else first_violation_of(seeds, given.processes)
    print(f"{len(seeds)} schedules in {time.monotonic() - began:.1f} s")
    if found is None:
        print(f"counted: {len(seeds)}")
        return 0
    seed, wrong = found
    print(*wrong, sep="\n")
    print(f"replay: python -m tests.simulation.run --seed {seed}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
