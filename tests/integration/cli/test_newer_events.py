"""An event that a newer program wrote: its sandbox says so and cannot be changed, everything else goes on."""

from __future__ import annotations

import pytest

from nexus.domain.sandbox import stream_id
from tests.integration.cli.console import Console


@pytest.fixture
def newer(nexus: Console) -> Console:
    """Two sandboxes; the last event of the first is of a version that there is not yet."""
    sandbox_id = nexus.create("newer")
    nexus.create("other")
    nexus.unprotect()
    changed = nexus.write(
        "UPDATE events SET schema_version = 99 WHERE originator_id = ? AND originator_version = 2 RETURNING topic",
        [stream_id(sandbox_id)],
    )
    assert changed == [("sandbox.started",)]
    return nexus


@pytest.mark.parametrize(
    "change",
    [["run", "newer", "-c", "out x"], ["pause", "newer"], ["extend", "newer", "--ttl", "20"], ["stop", "newer"]],
    ids=lambda change: change[0],
)
def test_it_cannot_be_changed(newer: Console, change: list[str]) -> None:
    before = newer.head()
    refused = newer("sandbox", *change, "--json")
    assert refused.status != 0
    assert refused.error["code"] == "unreadable_event"
    assert "version 99" in refused.error["message"]
    assert newer.head() == before


def test_the_rest_goes_on(newer: Console) -> None:
    assert newer.ok("sandbox", "run", "other", "-c", "out well").out == b"well\n"
    assert b"other" in newer.ok("sandbox", "list").out
    assert b"newer" in newer.ok("sandbox", "list").out
    newer.create("third")
    reconciled = newer("reconcile", env=newer.operator)
    assert reconciled.status in (0, 1)
    assert "Traceback" not in reconciled.err
    newer.ok("sandbox", "stop", "other")
    newer.ok("events", "list")


def test_its_history_shows_what_cannot_be_read(newer: Console) -> None:
    assert any("version 99" in str(getattr(envelope.event, "reason", "")) for envelope in newer.events())
