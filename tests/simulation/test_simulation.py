"""20,000 schedules without a violation; every planted fault found; every seed that ever failed, again."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.simulation.planted import FAULTS
from tests.simulation.run import check, first_violation, goes_wrong

SCHEDULES, CHUNK = 20_000, 250
"""Small enough that processes which share the work end together."""
REGRESSIONS = [int(line.split()[0]) for line in (Path(__file__).parent / "regressions.txt").read_text().splitlines()]


@pytest.mark.parametrize("chunk", range(SCHEDULES // CHUNK))
def test_no_schedule_violates_an_invariant(chunk: int) -> None:
    found = first_violation(range(chunk * CHUNK, (chunk + 1) * CHUNK))
    assert found is None, f"replay with: python -m tests.simulation.run --seed {found[0]}\n" + "\n".join(found[1])


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_failed_once_holds(seed: int) -> None:
    assert check(seed) == []


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_planted_fault_is_found_within_a_hundred_schedules(name: str) -> None:
    with FAULTS[name]():
        assert any(goes_wrong(seed) for seed in range(100)), f"nobody noticed: {name}"


def test_a_schedule_repeats_itself() -> None:
    from tests.simulation.world import simulated

    def story(seed: int) -> list[str]:
        with simulated(seed) as world:
            return [f"{envelope.event_id} {envelope.event!r}" for envelope in world.store.log]

    assert story(11) == story(11)
    assert story(11) != story(12)


DECISIONS = st.binary(max_size=600)


@hypothesis.settings(max_examples=150, derandomize=True, deadline=None, database=None)
@hypothesis.given(DECISIONS)
def test_no_string_of_decisions_violates_an_invariant(decisions: bytes) -> None:
    wrong = check(decisions)
    assert wrong == [], f"replay with: python -m tests.simulation.run --bytes {decisions.hex()}\n" + "\n".join(wrong)


def test_what_goes_wrong_is_shortened() -> None:
    """A few decisions are left of those that Hypothesis found: the ones that it takes to go wrong."""
    settings = hypothesis.settings(max_examples=400, derandomize=True, deadline=None, database=None)
    with FAULTS["outcomes_are_not_fenced"]():
        assert not goes_wrong(b"")
        shortest = hypothesis.find(DECISIONS, goes_wrong, settings=settings)
    assert 0 < len(shortest) <= 16
    assert check(shortest) == [], "it is the fault that goes wrong"
