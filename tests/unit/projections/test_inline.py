"""What the list, the status and the index of due work hold in each situation of a sandbox."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from nexus.domain import events as ev
from nexus.domain.ports import RowWrite
from nexus.domain.sandbox import Pending, Sandbox
from nexus.domain.values import Operation, SandboxState, StopReason, to_text
from nexus.projections import inline
from nexus.projections.tables import DUE, SANDBOX_LABELS, SANDBOXES
from nexus.projections.views import PendingView, SandboxView
from tests.unit.domain import story
from tests.unit.domain.story import at, given, paused, requested, run_started, started, stop_requested, stopped


def row_of(writes: list[RowWrite], table: str) -> dict[str, Any]:
    (row,) = [write for write in writes if write.table == table]
    assert row.values is not None
    return {**row.key, **row.values}


def listed(*events: ev.Event) -> dict[str, Any]:
    return row_of(inline.rows(given(*events)), SANDBOXES.name)


def due(*events: ev.Event) -> dict[str, Any]:
    return row_of(inline.rows(given(*events)), DUE.name)


LIFE = (requested(), started())


def test_a_requested_sandbox_is_listed_with_all_that_is_fixed() -> None:
    row = listed(requested())
    assert row["status"] == "creating"
    assert row["name"] == "data-analysis"
    assert (row["user_id"], row["tenant_id"], row["agent_id"]) == ("ann", "default", None)
    assert (row["limits"], row["labels"], row["env_names"]) == (
        '{"cpus":0.5,"memory_mb":512,"processes":null}',
        '{"team":"data"}',
        '["TOKEN"]',
    )
    assert (row["ttl_seconds"], row["network"], row["provider"]) == (600, "full", "fake")
    assert row["created_at"] == to_text(at(0))
    assert (row["pending_operation"], row["pending_attempt"]) == ("create", 1)
    assert (row["pending_deadline"], row["pending_holder"]) == (to_text(at(3)), "host:1")
    assert row["started_at"] is row["expires_at"] is row["ref"] is None


def test_rows_name_every_column_of_their_table() -> None:
    """A column that the code forgets would silently stay empty; one that the table lacks would fail."""
    for events in ((requested(),), LIFE, (*LIFE, run_started())):
        assert set(listed(*events)) == set(SANDBOXES.columns)
        assert set(due(*events)) == set(DUE.columns)


def test_labels_are_rows_of_their_own() -> None:
    state = given(requested().model_copy(update={"labels": {"b": "2", "a": "1"}}))
    labels = [write for write in inline.rows(state) if write.table == SANDBOX_LABELS.name]
    assert [(write.key["name"], write.values) for write in labels] == [("a", {"value": "1"}), ("b", {"value": "2"})]


def test_started() -> None:
    row = listed(*LIFE)
    assert (row["status"], row["version"], row["pending_operation"]) == ("active", 2, None)
    assert row["expires_at"] == to_text(at(10))
    assert (row["incarnation"], row["ref"]) == ("i1", '{"data":{"id":"r1"},"provider":"fake","version":1}')


def test_running() -> None:
    row = listed(*LIFE, run_started("ex_1"), run_started("ex_2"))
    assert (row["runs"], row["open_executions"]) == (2, 2)


def test_paused() -> None:
    row = listed(*LIFE, story.pause_requested(), paused(remaining=300.5))
    assert (row["status"], row["remaining_seconds"], row["expires_at"]) == ("paused", 300.5, None)


def test_every_column_follows_the_state() -> None:
    """A state of which no two parts are alike, so that none can stand in another's column."""
    pending = Pending(Operation.STOP, 7, at(1), "pending-holder", StopReason.EXPIRED)
    state = Sandbox(
        sandbox_id="sb_id", name="name", user_id="user", tenant_id="tenant", agent_id="agent", provider="provider",
        template_id="template", ttl_seconds=1, max_age_seconds=2, network="network", limits={"memory_mb": 3},
        labels={"label": "value"}, env_names=("env",), created_at=at(2), version=4, state=SandboxState.PAUSED,
        attempt=5, generation=6, pending=pending, ref={"ref": 8}, incarnation="incarnation", notes=("note",),
        started_at=at(3), last_active_at=at(4), paused_at=at(5), stopped_at=at(6), stop_reason=StopReason.LOST,
        expires_at=at(7), remaining_seconds=9.5, last_error="error", runs=10, capture=True,
    )  # fmt: skip
    assert row_of(inline.rows(state), SANDBOXES.name) == {
        "sandbox_id": "sb_id", "version": 4, "name": "name", "status": "paused", "provider": "provider",
        "template_id": "template", "user_id": "user", "agent_id": "agent", "tenant_id": "tenant",
        "network": "network", "limits": '{"memory_mb":3}', "labels": '{"label":"value"}', "env_names": '["env"]',
        "ttl_seconds": 1, "max_age_seconds": 2, "created_at": to_text(at(2)), "started_at": to_text(at(3)),
        "last_active_at": to_text(at(4)), "paused_at": to_text(at(5)), "stopped_at": to_text(at(6)),
        "stop_reason": "lost", "expires_at": to_text(at(7)), "remaining_seconds": 9.5, "notes": '["note"]',
        "pending_operation": "stop", "pending_attempt": 7, "pending_deadline": to_text(at(1)),
        "pending_holder": "pending-holder", "last_error": "error", "runs": 10, "open_executions": 0, "generation": 6,
        "ref": '{"ref":8}', "incarnation": "incarnation", "capture": 1,
    }  # fmt: skip
    view = SandboxView.of(state)
    assert (view.generation, view.runs, view.incarnation, view.last_error) == (6, 10, "incarnation", "error")
    assert view.pending == PendingView(Operation.STOP, 7, at(1), "pending-holder")
    assert (view.started_at, view.last_active_at, view.paused_at) == (at(3), at(4), at(5))
    assert (view.stopped_at, view.expires_at, view.created_at) == (at(6), at(7), at(2))


@pytest.mark.parametrize("reason", StopReason)
def test_stopped(reason: StopReason) -> None:
    row = listed(*LIFE, stop_requested(reason=reason), stopped(reason=reason))
    assert (row["status"], row["stop_reason"], row["stopped_at"]) == ("stopped", reason.value, to_text(at(0)))


def test_taken_over() -> None:
    row = listed(requested(), story.taken_over(Operation.CREATE, attempt=2, deadline=8))
    assert (row["pending_operation"], row["pending_attempt"], row["pending_holder"]) == ("create", 2, "host:2")


def test_a_replay_does_not_write_again_what_was_fixed() -> None:
    state = given(*LIFE)
    (later,) = inline.Sandboxes().rows(state, before=1)
    full, changing = row_of(inline.rows(state), SANDBOXES.name), row_of([later], SANDBOXES.name)
    assert changing.items() <= full.items()
    fixed = set(full) - set(changing)
    assert fixed == {
        "name", "provider", "template_id", "user_id", "agent_id", "tenant_id", "network", "limits", "labels",
        "env_names", "ttl_seconds", "max_age_seconds", "capture", "created_at",
    }  # fmt: skip


def test_an_append_writes_what_its_events_changed() -> None:
    before = given(*LIFE)
    after = story.folded(before, [run_started()], at(2))
    assert after is not None
    changed, due_row = inline.rows(after, before)
    assert (changed.table, changed.known, changed.newer) == (SANDBOXES.name, True, "version")
    assert set(changed.values or ()) == {"version", "last_active_at", "runs", "open_executions"}
    assert {**row_of(inline.rows(before), SANDBOXES.name), **row_of([changed], SANDBOXES.name)} == row_of(
        inline.rows(after), SANDBOXES.name
    )
    assert (due_row.table, due_row.known, due_row.newer) == (DUE.name, True, "version")
    created = story.folded(None, [requested()], at(0))
    assert created is not None
    *_, first = inline.rows(created)
    assert (first.table, first.known) == (DUE.name, False)


def test_every_attribute_that_events_may_change_has_columns() -> None:
    """But for the fencing token: the attempt of the operation in flight is shown, the highest one is not."""
    fixed = inline.Sandboxes._fixed(given(*LIFE)).keys() | {"sandbox_id"}
    assert {field.name for field in fields(Sandbox)} - fixed == {*inline._CHANGING, "version", "attempt"}


# --- when somebody has to look ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("events", "minute", "in_flight"),
    [
        ((requested(),), 3, 1),
        (LIFE, 10, 0),
        ((*LIFE, run_started(lease=1)), 1, 1),
        ((*LIFE, run_started(lease=1), story.run_finished()), 10, 0),
        ((*LIFE, story.pause_requested(deadline=5)), 5, 1),
        ((*LIFE, story.pause_requested(), paused()), 30 * 24 * 60, 0),
        ((*LIFE, stop_requested(deadline=5)), 5, 1),
    ],
    ids=["creating", "active", "running", "ran", "pausing", "paused", "stopping"],
)
def test_due(events: tuple[ev.Event, ...], minute: float, in_flight: int) -> None:
    row = due(*events)
    assert (row["due_at"], row["in_flight"]) == (to_text(at(minute)), in_flight)


def test_nobody_looks_at_a_stopped_one() -> None:
    state = given(*LIFE, stop_requested(), stopped())
    assert [write.values for write in inline.rows(state) if write.table == DUE.name] == [None]
