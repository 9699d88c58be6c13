"""Given a log, when usage is asked for, then so many seconds, runs and costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nexus.domain import events as ev
from nexus.domain.errors import InvalidInput
from nexus.domain.values import StopReason
from nexus.engine.lives import RunOutcome, lives
from nexus.engine.usage import Report, Usage, usage
from tests.unit.domain import story
from tests.unit.domain.story import at

LATER = at(10_000)
Told = tuple[ev.Event, float]


def given(*told: Told, number: int = 5, **owner: Any) -> list[ev.Envelope]:
    """One sandbox's log: events with the minutes at which they happened."""
    sandbox = str(number) * 32
    log = []
    for version, (event, minute) in enumerate(told, start=1):
        if isinstance(event, ev.SandboxRequested):
            event = event.model_copy(update={"sandbox_id": "sb_" + sandbox, **owner})
        log.append(replace(story.envelope(event, version, at(minute)), originator_id="sandbox-" + sandbox))
    return log


def when(*logs: list[ev.Envelope], by: str | tuple[str, ...] = "provider", **more: Any) -> Report:
    return usage([envelope for log in logs for envelope in log], by=by, **{"now": LATER, **more})


def timed_out(execution_id: str) -> ev.ExecutionTimedOut:
    kept = story.run_finished(execution_id).model_dump(exclude={"signal", "oom_killed"})
    return ev.ExecutionTimedOut(**{**kept, "exit_code": 124})


def seconds(found: Usage) -> tuple[float, float]:
    return found.active_seconds, found.paused_seconds


LIFE: tuple[Told, ...] = (
    (story.requested(), 0),
    (story.started(), 1),
    (story.pause_requested(), 10),
    (story.paused(), 11),
    (story.resume_requested(), 40),
    (story.resumed(), 41),
    (story.stop_requested(attempt=4), 60),
    (story.stopped(attempt=4), 61),
)
"""Active for 10 and 20 minutes, paused for 30."""


def test_time_counts_from_outcome_to_outcome() -> None:
    assert seconds(when(given(*LIFE)).total) == (30 * 60, 30 * 60)


def test_what_has_not_ended_counts_up_to_now() -> None:
    assert seconds(when(given(*LIFE[:2]), now=at(6)).total) == (5 * 60, 0)
    assert seconds(when(given(*LIFE[:4]), now=at(13)).total) == (10 * 60, 2 * 60)


@pytest.mark.parametrize(
    ("end", "reason"),
    [(story.failed(), StopReason.FAILED), (story.stopped(reason=StopReason.ORPHANED), StopReason.ORPHANED)],
)
def test_being_created_is_not_use(end: ev.Event, reason: StopReason) -> None:
    log = given((story.requested(), 0), (end, 3))
    assert when(log).groups == {}
    assert [life.stop_reason for life in lives(log)] == [reason]


def test_a_lost_sandbox_counts_until_that_was_known() -> None:
    log = given(*LIFE[:2], (story.run_started(), 2), (ev.SandboxLost(detail="gone"), 5))
    found = when(log).total
    assert seconds(found) == (4 * 60, 0)
    assert found.outcomes[RunOutcome.LOST] == found.runs == 1


def test_every_run_has_one_outcome() -> None:
    failed = story.run_finished("b").model_copy(update={"exit_code": 3})
    runs = [(story.run_started(name), 2.0) for name in "abcde"]
    log = given(
        *LIFE[:2],
        *runs,
        (story.run_finished("a"), 3),
        (failed, 3),
        (timed_out("c"), 3),
        (ev.ExecutionLost(execution_id="d", reason="its holder died"), 3),
    )
    found = when(log).total
    assert found.outcomes == dict.fromkeys(RunOutcome, 1)
    assert found.runs == 5


def test_an_outcome_that_comes_after_the_end_is_told() -> None:
    log = given(*LIFE[:2], (story.run_started(), 2), (story.stopped(), 3), (story.run_finished(), 4))
    assert when(log).total.outcomes[RunOutcome.SUCCEEDED] == 1
    (run,) = lives(log)[0].runs.values()
    assert run.end == at(3)


def test_a_period_takes_its_share() -> None:
    log = given(*LIFE[:2], (story.run_started("a"), 5), *LIFE[2:])
    assert seconds(when(log, since=at(6), until=at(21)).total) == (5 * 60, 10 * 60)
    assert when(log, since=at(6)).total.runs == 0
    assert when(log, since=at(5), until=at(5.5)).total.runs == 1
    assert when(log, until=at(5)).total.runs == 0
    assert when(log, since=at(70)).groups == {}
    assert seconds(when(log, until=at(10_000), now=at(6)).total) == (5 * 60, 0)


@pytest.mark.parametrize("by", ["provider", "user", "day", "sandbox", "label:team"])
def test_adjoining_periods_and_groups_add_up(by: str) -> None:
    logs = [given(*LIFE, number=1), given(*LIFE[:6], (story.run_started(), 50), number=2, provider="other")]
    whole = when(*logs, by=by, now=at(5000))
    parts = [when(*logs, by=by, now=at(5000), until=at(33)), when(*logs, by=by, now=at(5000), since=at(33))]
    for total in (whole.groups.values(), [part.total for part in parts]):
        assert sum(found.active_seconds for found in total) == pytest.approx(whole.total.active_seconds)
        assert sum(found.paused_seconds for found in total) == pytest.approx(whole.total.paused_seconds)
        assert sum(found.runs for found in total) == whole.total.runs == 1


def test_groups() -> None:
    logs = [
        given(*LIFE, number=1, user_id="bob", labels={}),
        given(*LIFE[:4], number=2, provider="other"),
    ]
    assert list(when(*logs, by="user").groups) == ["ann", "bob"]
    assert list(when(*logs, by="provider").groups) == ["fake", "other"]
    assert list(when(*logs, by="sandbox").groups) == ["sb_" + "1" * 32, "sb_" + "2" * 32]
    assert list(when(*logs, by="label:team").groups) == ["data", None]
    only = when(*logs, by="user", of=lambda life: life.user_id == "bob")
    assert list(only.groups) == ["bob"]
    assert seconds(only.total) == (30 * 60, 30 * 60)


def test_days_are_those_of_utc() -> None:
    """The story begins at noon: active to midnight and a whole day, then an hour of a third."""
    log = given(*LIFE[:2], (story.stopped(), (12 + 24 + 1) * 60))
    found = when(log, by="day")
    assert {day: group.active_seconds for day, group in found.groups.items()} == {
        "2030-01-01": 12 * 3600 - 60,
        "2030-01-02": 24 * 3600,
        "2030-01-03": 3600,
    }


@pytest.mark.parametrize("by", ["", "label:", "label", "Provider", "month", "label\x1b:"])
def test_there_are_no_other_groups(by: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be told by"):
        when(by=by)


def test_costs_are_prices_times_active_hours() -> None:
    found = when(given(*LIFE, number=1), given(*LIFE, number=2, provider="other")).total
    assert found.cost({"fake": 0.5, "other": 2}) == pytest.approx(0.25 + 1)
    assert found.cost({"fake": 0.5}) == pytest.approx(0.25)
    assert found.unpriced({"fake": 0.5}) == ["other"]
    assert found.cost({"fake": 0, "other": 0}) == 0
    assert found.cost({}) is None
    assert when().total.cost({}) == 0


def test_paused_hours_cost_where_they_have_a_price() -> None:
    found = when(given(*LIFE, number=1), given(*LIFE, number=2, provider="other")).total
    prices = {"fake": 0.5, "other": 2}
    assert found.cost(prices, {"fake": 4}) == pytest.approx(0.25 + 1 + 2)
    assert found.cost(prices, {"elsewhere": 4}) == pytest.approx(0.25 + 1)
    assert found.cost({}, {"fake": 4}) is None
    told = found.to_dict(prices, {"fake": 4})["providers"]
    assert told["fake"] == {"active_seconds": 1800, "paused_seconds": 1800, "cost": 2.25}
    assert told["other"]["cost"] == 1
    only_paused = when(given(*LIFE), since=at(21), until=at(22)).total
    assert only_paused.active_seconds == 0
    assert only_paused.cost({}, {"fake": 60}) == pytest.approx(1)


def test_groups_of_several_things() -> None:
    logs = [
        given(*LIFE[:2], (story.stopped(), 13 * 60), number=1, user_id="bob", labels={}),
        given(*LIFE, number=2),
    ]
    found = when(*logs, by=("user", "day"))
    assert list(found.groups) == [("ann", "2030-01-01"), ("bob", "2030-01-01"), ("bob", "2030-01-02")]
    assert sum(group.active_seconds for group in found.groups.values()) == found.total.active_seconds
    assert list(when(*logs, by=("label:team", "user")).groups) == [("data", "ann"), (None, "bob")]
    assert list(when(*logs, by=("user",)).groups) == [("ann",), ("bob",)]


@pytest.mark.parametrize("by", [(), ("user", "user"), ("user", "month")])
def test_several_things_are_different_and_known(by: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        when(by=by)


def test_nothing_is_counted_after_what_cannot_be_read() -> None:
    unread = ev.Unread(stored_topic="sandbox.moved", stored_version=1, reason="unknown event")
    found = when(given(*LIFE[:2], (unread, 5), (story.stopped(), 90)))
    assert seconds(found.total) == (4 * 60, 0)
    assert found.unreadable == (story.SANDBOX,)


def test_other_streams_are_passed_over() -> None:
    claim = replace(story.envelope(ev.NameClaimed(name="x", sandbox_id=story.SANDBOX), 1), originator_id="name-x")
    assert lives([claim]) == []
