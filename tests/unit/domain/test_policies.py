"""Who may do what, how long operations may take, and the small values that everybody speaks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.domain.errors import NotAllowed, SandboxNotFound
from nexus.domain.policies import Limits, Owner, authorize, is_young, lease, operation_deadline
from nexus.domain.values import Action, Operation, Principal, from_text, system_principal, to_text

ANN = Owner(user_id="ann", tenant_id="acme")

PRINCIPALS = {
    "the owner": Principal("ann", "acme"),
    "an agent of the owner": Principal("ann", "acme", agent_id="bot"),
    "another user": Principal("bob", "acme"),
    "an admin": Principal("root", "acme", is_admin=True),
    "the same name in another tenant": Principal("ann", "other"),
    "an admin of another tenant": Principal("root", "other", is_admin=True),
    "the installation": system_principal(),
}
MAY_REACH_ANNS = {"the owner", "an agent of the owner", "an admin", "the installation"}
MAY_OPERATE = {"an admin", "an admin of another tenant", "the installation"}


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("who", list(PRINCIPALS))
def test_who_reaches_whose_sandbox(who: str, action: Action) -> None:
    if who in MAY_REACH_ANNS:
        authorize(PRINCIPALS[who], action, ANN, "sb_1")
        return
    with pytest.raises(SandboxNotFound) as refusal:
        authorize(PRINCIPALS[who], action, ANN, "sb_1")
    assert refusal.value.details == SandboxNotFound("sb_1").details, "it must answer as for an unknown id"
    assert str(refusal.value) == str(SandboxNotFound("sb_1"))


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("who", list(PRINCIPALS))
def test_what_needs_no_sandbox(who: str, action: Action) -> None:
    if action is Action.OPERATE and who not in MAY_OPERATE:
        with pytest.raises(NotAllowed, match=PRINCIPALS[who].actor):
            authorize(PRINCIPALS[who], action, None)
    else:
        authorize(PRINCIPALS[who], action, None)


def test_the_audit_log_tells_people_agents_and_the_system_apart() -> None:
    assert Principal("ann").actor == "user:ann"
    assert Principal("ann", agent_id="bot").actor == "agent:bot"
    assert system_principal("worker").actor == "system:worker"


def test_deadlines_and_leases() -> None:
    limits, now = Limits(), datetime(2030, 1, 1, tzinfo=UTC)
    assert operation_deadline(limits, Operation.CREATE, now) - now == timedelta(seconds=limits.create_deadline)
    for operation in set(Operation) - {Operation.CREATE}:
        assert operation_deadline(limits, operation, now) - now == timedelta(seconds=limits.operation_deadline)
    assert lease(limits, 30, now) - now == timedelta(seconds=30 + limits.run_grace)


def test_the_bounds_that_users_were_promised() -> None:
    limits = Limits()
    assert (limits.default_ttl_minutes, limits.default_timeout) == (10, 30)
    assert limits.max_ttl_minutes >= 120


# --- times as text ---------------------------------------------------------------------------------------------------
MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),
    max_value=datetime(9999, 12, 30),
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@given(MOMENTS, MOMENTS)
def test_text_sorts_as_time_does(one: datetime, other: datetime) -> None:
    assert len(to_text(one)) == 32
    assert from_text(to_text(one)) == one
    assert (to_text(one) < to_text(other)) == (one < other)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        to_text(datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="zone"):
        from_text("2030-01-01T00:00:00")


@pytest.mark.parametrize(
    ("grace", "age", "young"),
    [(60, 59, True), (60, 60, False), (60, -5, True), (0, 0, False), (0, -0.001, False), (60, None, False)],
)
def test_what_is_too_new_to_be_an_orphan(grace: int, age: float | None, young: bool) -> None:
    """Without a grace nothing is, and were it made by a clock that is ahead."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    created = None if age is None else now - timedelta(seconds=age)
    assert is_young(Limits(orphan_grace=grace), created, now) is young
