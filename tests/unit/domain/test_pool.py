"""A member of the warm pool: given its events, what may happen to it next, and what never may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nexus.domain import events as ev
from nexus.domain import pool
from nexus.domain import pool_events as pe
from nexus.domain.pool import Member, NotReady, PoolPlan
from nexus.domain.values import MemberState, RetireReason
from tests.unit.domain.pool_story import SANDBOX, given, ready, requested, retired, taken
from tests.unit.domain.story import REF, at

Decision = Callable[[Member], Sequence[ev.Event]]
IN_STATE = {
    MemberState.REQUESTED: given(requested()),
    MemberState.READY: given(requested(), ready()),
    MemberState.TAKEN: given(requested(), ready(), taken()),
    MemberState.RETIRED: given(requested(), ready(), retired()),
    MemberState.REMOVED: given(requested(), ready(), retired(), pe.PoolMemberRemoved()),
}
DECISIONS: dict[str, Decision] = {
    "made": lambda m: pool.made(m, REF),
    "taken": lambda m: pool.taken(m, SANDBOX),
    "expired": lambda m: pool.retired(m, RetireReason.EXPIRED),
    "unfit": lambda m: pool.retired(m, RetireReason.UNFIT, "it is paused"),
    "stranded": lambda m: pool.retired(m, RetireReason.STRANDED),
    "removed": pool.removed,
}
NO, NOTHING = "no", "nothing"
MATRIX: dict[str, tuple[Any, ...]] = {
    # in state:   requested,          ready,               taken,               retired, removed
    "made":      (MemberState.READY, NO, NO, NO, NO),
    "taken":     (NO, MemberState.TAKEN, NO, NO, NO),
    "expired":   (MemberState.RETIRED, MemberState.RETIRED, NO, NOTHING, NOTHING),
    "unfit":     (MemberState.RETIRED, MemberState.RETIRED, MemberState.RETIRED, NOTHING, NOTHING),
    "stranded":  (MemberState.RETIRED, MemberState.RETIRED, MemberState.RETIRED, NOTHING, NOTHING),
    "removed":   (NO, NO, NO, MemberState.REMOVED, NOTHING),
}  # fmt: skip


@pytest.mark.parametrize("state", MemberState)
@pytest.mark.parametrize("decision", DECISIONS)
def test_what_may_happen_in_every_state(decision: str, state: MemberState) -> None:
    member, outcome = IN_STATE[state], MATRIX[decision][list(MemberState).index(state)]
    assert member.state is state
    if outcome is NO:
        with pytest.raises(NotReady):
            DECISIONS[decision](member)
        return
    events = DECISIONS[decision](member)
    if outcome is NOTHING:
        assert list(events) == []
        return
    assert given(*story(state), *events).state is outcome


def story(state: MemberState) -> list[ev.Event]:
    told = [requested(), ready()]
    return {
        MemberState.REQUESTED: told[:1],
        MemberState.READY: told,
        MemberState.TAKEN: [*told, taken()],
        MemberState.RETIRED: [*told, retired()],
        MemberState.REMOVED: [*told, retired(), pe.PoolMemberRemoved()],
    }[state]


def test_every_event_of_a_member_is_folded() -> None:
    assert {pe.PoolMemberRequested, pe.PoolSlotClaimed, *pool.APPLY} == set(pe.POOL_EVENTS)


def test_what_a_member_remembers() -> None:
    member = given(requested(), ready(), taken(), retired(RetireReason.UNFIT, "it is paused"))
    assert (member.sandbox_id, member.reason, member.detail) == (SANDBOX, RetireReason.UNFIT, "it is paused")
    assert (member.requested_at, member.ready_at, member.version, member.ref) == (at(1), at(2), 4, REF)


def test_it_occupies_its_slot_as_long_as_it_may_be_a_resource_of_the_pool() -> None:
    assert [state for state, member in IN_STATE.items() if member.occupies] == [
        MemberState.REQUESTED,
        MemberState.READY,
        MemberState.RETIRED,
    ]


def test_what_went_wrong_is_recorded_within_bounds() -> None:
    (event,) = pool.retired(IN_STATE[MemberState.REQUESTED], RetireReason.FAILED, "x" * 5000)
    assert isinstance(event, pe.PoolMemberRetired)
    assert len(event.detail) == pool.DETAIL_LIMIT


def test_a_stream_that_begins_otherwise_is_none() -> None:
    with pytest.raises(ValueError, match="begins with"):
        given(ready())


def test_slots_are_apart_by_provider_place_template_and_number() -> None:
    streams = {
        pool.slot_stream("docker", "a", "default", 0),
        pool.slot_stream("docker", "a", "default", 1),
        pool.slot_stream("docker", "b", "default", 0),
        pool.slot_stream("other", "a", "default", 0),
        pool.slot_stream("docker", "a", "data", 0),
    }
    assert len(streams) == 5
    assert not any(pool.is_member_stream(stream) for stream in streams)
    assert pool.is_member_stream(pool.stream_id("pm_" + "0" * 32))


def test_all_templates_together_are_bounded_and_the_first_get_theirs() -> None:
    assert PoolPlan("fake", {"a": 3, "b": 3, "c": 1}, total=5).allotted() == {"a": 3, "b": 2, "c": 0}
    assert PoolPlan("fake", {"a": 3, "b": 3}, total=10).allotted() == {"a": 3, "b": 3}
