"""Play schedules: `python -m tests.simulation.run --seed 17` replays one, `--first 0 --count 20000` plays many."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.invariants import violations
from tests.simulation.world import simulated


def check(seed: int) -> list[str]:
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


def tell(seed: int) -> None:
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
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    if given.seed is not None:
        tell(given.seed)
    seeds = (
        range(given.seed, given.seed + 1) if given.seed is not None else range(given.first, given.first + given.count)
    )
    began = time.monotonic()
    found = first_violation(seeds)
    print(f"{len(seeds)} schedules in {time.monotonic() - began:.1f} s")
    if found is None:
        return 0
    seed, wrong = found
    print(*wrong, sep="\n")
    print(f"replay: python -m tests.simulation.run --seed {seed}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
