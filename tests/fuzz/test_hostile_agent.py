"""A hostile sandbox answers the manager: bounded time and memory, a clear error, and never another run's data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexus.adapters.agent import client, link
from nexus.adapters.agent.client import AgentLink
from nexus.adapters.agent.guest import frames
from nexus.domain.errors import FileNotInSandbox, InvalidInput, NexusError, ProviderError
from nexus.domain.provider import ExecutionResult, RunRequest
from tests.fuzz.budget import budget
from tests.fuzz.hostile_agent import FOREIGN, HONEST_TTL, MOVES, HostileStream, Move, Time

TIMEOUT, LIMIT = 5, 200_000
SOON = datetime(2100, 1, 1, tzinfo=UTC)
REQUEST = RunRequest(execution_id="ex_1", timeout=TIMEOUT, code=b"print(1)", stdin=b"x" * 100_000)

ASK: Final[dict[str, Callable[[AgentLink], Any]]] = {
    "hello": lambda agent: agent.hello(),
    "setup": lambda agent: agent.setup({"A": "b"}, SOON),
    "ping": lambda agent: agent.ping(),
    "extend": lambda agent: agent.extend(SOON),
    "extend later": lambda agent: agent.extend_later(SOON)(),
    "time left": lambda agent: agent.time_left(),
    "cancel": lambda agent: agent.cancel("ex_1"),
    "run": lambda agent: agent.run(REQUEST),
    "read": lambda agent: b"".join(agent.read_file("a", LIMIT)),
    "write": lambda agent: agent.write_file("a", [b"x" * 100_000] * 2, LIMIT),
}
LONGEST: Final = {"run": TIMEOUT + 2 * client.RUN_GRACE, "read": link.ANSWER_TIME + LIMIT / 4096 + client.RUN_GRACE}
"""Virtual seconds. Everything else takes two answers at most, the second of which ends what the first began."""
ANSWERS: Final = 2 * link.ANSWER_TIME + client.RUN_GRACE


@pytest.fixture(scope="module")
def time() -> Iterator[Time]:
    """The same one for all examples: they only ever look at differences."""
    virtual = Time()
    with patch.object(link, "time", virtual), patch.object(client, "time", virtual):
        yield virtual


@budget(400)
@given(st.sampled_from(sorted(ASK)), MOVES, st.booleans(), st.integers(0, 9).map(bool))
# What was found: an answer that is announced again and again, a file that comes by the byte, a sandbox that reads
# nothing, a connection that breaks while a file is sent.
@example("ping", [Move("forever", frames.ACCEPTED, b"", 0, 3.0)], False, True)
@example("run", [Move("forever", frames.ACCEPTED)], False, True)
@example("read", [Move("forever", frames.CONTENT, b"x", 0, 14.0)], False, True)
@example("run", [Move("forever", frames.STDERR, b"x" * 60_000)], False, True)
@example("write", [Move("frame", frames.ACCEPTED)], True, False)
@example("write", [Move("frame", frames.ACCEPTED), Move("frame", frames.DONE, frames.pack({"size": -1}))], False, True)
@example("run", [], False, False)
@example("write", [], False, False)
def test_whatever_it_answers(time: Time, ask: str, moves: list[Move], ends: bool, reads: bool) -> None:
    stream = HostileStream(time, moves, reads=reads)
    stream.ended = ends
    began = time.now
    with AgentLink(stream) as agent:
        check(outcome(agent, ask))
        assert time.now - began <= LONGEST.get(ask, ANSWERS) + 1, "it held its caller up"
        assert agent._channels == {}
        assert len(agent._arrived) + len(agent._parser._buffer) < 200_000
        if not agent.broken:
            stream.turn_honest()
            try:
                assert agent.time_left() == HONEST_TTL / 1000, "an answer to something else"
            except NexusError:
                assert agent.broken, "a link that works and does not answer"


def outcome(agent: AgentLink, ask: str) -> Any:
    try:
        return ASK[ask](agent)
    except (ProviderError, InvalidInput, FileNotInSandbox) as error:
        return error


def check(answer: Any) -> None:
    """What a lying agent may make us believe is at least of the right kind and size."""
    if isinstance(answer, NexusError):
        assert FOREIGN.decode() not in answer.message
        assert len(answer.message) < 3000
    elif isinstance(answer, ExecutionResult):
        assert FOREIGN not in answer.stdout + answer.stderr
        assert 0 <= answer.exit_code <= 255
        assert answer.stdout_bytes >= len(answer.stdout) <= frames.OUTPUT_CAP
        assert answer.stderr_bytes >= len(answer.stderr) <= frames.OUTPUT_CAP
        assert answer.duration >= 0
    elif isinstance(answer, bytes):
        assert FOREIGN not in answer
        assert len(answer) <= LIMIT
    elif type(answer) is int:
        assert answer == 200_000


def test_a_flood_for_one_who_does_not_look_stops_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the caller of one run is busy with its output, another thread reads for both of them."""
    monkeypatch.setattr(link, "_QUEUE", 256 * 1024)
    time, looking, go_on = Time(), threading.Event(), threading.Event()
    stream = HostileStream(time, [Move("frame", frames.STDOUT, b"x"), Move("forever", frames.STDERR)])
    failures: list[NexusError] = []

    def busy(*_: object) -> None:
        looking.set()
        go_on.wait(30)

    def first() -> None:
        with pytest.raises(ProviderError):
            agent.run(REQUEST, busy)

    with patch.object(link, "time", time), patch.object(client, "time", time), AgentLink(stream) as agent:
        thread = threading.Thread(target=first)
        thread.start()
        assert looking.wait(30)
        waited = threading.Condition.wait

        def passing(self: threading.Condition, timeout: float | None = None) -> bool:
            """The flooded one takes nothing, so the other waits for its own time and no longer."""
            time.now += timeout or 0.0
            return waited(self, 0.001)

        with patch.object(threading.Condition, "wait", passing):
            try:
                agent.ping()
            except NexusError as error:
                failures.append(error)
        (flooded,) = agent._channels.values()
        assert link._QUEUE < flooded.size <= link._QUEUE + 100_000
        assert len(flooded.queue) <= link._QUEUE // link._FRAME + 1
        go_on.set()
        thread.join(30)
        assert not thread.is_alive()
    assert isinstance(failures[0], client.AgentSilent)
