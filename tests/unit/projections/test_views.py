"""The frozen keys of a sandbox, and what its numbers mean."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from nexus.domain import events as ev
from nexus.domain.values import to_text
from nexus.projections.views import SandboxView
from tests.unit.domain import story
from tests.unit.domain.story import at, given, paused, requested, run_started, started, stop_requested, stopped

KEYS = (
    "sandbox_id", "name", "status", "provider", "template_id", "user_id", "agent_id", "tenant_id", "created_at",
    "last_active_at", "paused_at", "stopped_at", "ttl_minutes", "expires_at", "uptime_seconds", "stop_reason",
)  # fmt: skip


def view(*events: ev.Event | tuple[ev.Event, float]) -> SandboxView:
    return SandboxView.of(given(*events))


def test_the_keys_are_frozen() -> None:
    assert tuple(view(requested()).to_dict(at(0))) == KEYS


def test_an_active_one() -> None:
    shown = view(requested(), (started(), 1)).to_dict(at(3))
    assert shown["status"] == "active"
    assert shown["ttl_minutes"] == 10
    assert isinstance(shown["ttl_minutes"], int)
    assert shown["created_at"] == "2030-01-01T12:00:00.000000+00:00"
    assert shown["expires_at"] == to_text(at(10))
    assert datetime.fromisoformat(shown["last_active_at"]) == at(1)
    assert shown["uptime_seconds"] == 120.0
    assert shown["stop_reason"] is shown["stopped_at"] is shown["paused_at"] is None


def test_uptime_stops_with_the_sandbox() -> None:
    stopped_one = view(requested(), (started(), 1), (stop_requested(), 4), (stopped(), 5))
    assert stopped_one.uptime(at(60)) == 240.0
    assert stopped_one.to_dict(at(60))["stop_reason"] == "user"
    assert view(requested()).uptime(at(60)) == 0.0
    assert view(requested(), (story.failed(), 1)).uptime(at(60)) == 0.0
    assert view(requested(), (started(), 1)).uptime(at(0)) == 0.0, "a clock behind the log"


def test_odd_times_to_live_are_minutes_too() -> None:
    assert view(requested().model_copy(update={"ttl_seconds": 90})).to_dict(at(0))["ttl_minutes"] == 1.5


def test_details_hold_the_rest_and_survive_json() -> None:
    shown = view(requested(), started(), run_started(), (story.pause_requested(), 2)).details(at(3))
    assert json.loads(json.dumps(shown)) == shown
    assert shown.items() >= view(requested(), started(), run_started()).to_dict(at(3)).items()
    assert shown["pending"] == {
        "operation": "pause",
        "attempt": 2,
        "deadline": to_text(at(5)),
        "holder": "host:1",
    }
    assert shown["labels"] == {"team": "data"}
    assert shown["limits"] == {"memory_mb": 512, "cpus": 0.5, "processes": None}
    assert (shown["env_names"], shown["open_executions"], shown["runs"], shown["generation"]) == (["TOKEN"], 1, 1, 1)
    assert shown["ref"] == story.REF


@pytest.mark.parametrize(
    "events",
    [
        (requested(),),
        (requested(), started()),
        (requested(), started(), story.pause_requested(), paused()),
        (requested(), story.failed()),
        (requested(), started(), stop_requested(), stopped()),
    ],
)
def test_a_view_is_a_value(events: tuple[ev.Event, ...]) -> None:
    assert view(*events) == view(*events)
    assert view(*events).sandbox_id == story.SANDBOX
