"""The events of a sandbox that runs code again and again, for the benchmarks of stores and views."""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from nexus.domain import events as ev
from nexus.domain.sandbox import Sandbox, fold, stream_id

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def envelope(stream: str, version: int, happened: ev.Event) -> ev.Envelope:
    return ev.Envelope(
        event_id=str(uuid.uuid4()),
        originator_id=stream,
        originator_version=version,
        occurred_at=NOW + timedelta(milliseconds=version),
        event=happened,
        actor="user:bench",
        tenant_id="default",
        command="run",
        correlation_id="bench",
        causation_id=None,
        origin="python@bench:1",
    )


def requested(sandbox_id: str) -> ev.SandboxRequested:
    return ev.SandboxRequested(
        sandbox_id=sandbox_id,
        name="bench",
        user_id="bench",
        tenant_id="default",
        agent_id=None,
        provider="local",
        template_id=None,
        ttl_seconds=600,
        max_age_seconds=86400,
        network="none",
        limits={},
        labels={"team": "bench"},
        env_names=(),
        attempt=1,
        deadline=NOW,
        holder="bench:1",
    )


def run(number: int) -> tuple[ev.ExecutionStarted, ev.ExecutionFinished]:
    later = NOW + timedelta(minutes=10, milliseconds=number)
    started = ev.ExecutionStarted(
        execution_id=f"ex_{number}",
        language="python",
        code_sha256="0" * 64,
        code_bytes=20,
        timeout=30,
        lease_until=later,
        holder="bench:1",
        expires_at=later,
    )
    finished = ev.ExecutionFinished(
        execution_id=f"ex_{number}",
        exit_code=0,
        duration=0.01,
        stdout_bytes=2,
        stderr_bytes=0,
        stdout_sha256="1" * 64,
        stderr_sha256="2" * 64,
        truncated=False,
        expires_at=later,
    )
    return started, finished


def life(runs: int) -> Iterator[tuple[ev.Envelope, Sandbox]]:
    """A sandbox's events one by one, each with the state that it leads to, which stays as it is."""
    sandbox_id = f"sb_{uuid.uuid4().hex}"
    stream = stream_id(sandbox_id)
    begun = ev.SandboxStarted(attempt=1, ref={"id": "1"}, incarnation="i", expires_at=NOW)
    # One by one: whoever wants no end of events asks for a million runs.
    story = itertools.chain[ev.Event]([requested(sandbox_id), begun], (part for n in range(runs) for part in run(n)))
    state: Sandbox | None = None
    for version, happened in enumerate(story, start=1):
        placed = envelope(stream, version, happened)
        state = fold(copy.copy(state), [placed])
        assert state is not None
        yield placed, state


def steps(runs: int) -> Iterator[tuple[ev.Envelope, Sandbox | None, Sandbox]]:
    """The same, each with the state before it, too."""
    before: Sandbox | None = None
    for placed, state in life(runs):
        yield placed, before, state
        before = state
