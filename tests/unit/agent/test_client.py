"""The client against an agent that lies, babbles, or falls silent: bounded, and never believed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nexus.adapters.agent import client
from nexus.adapters.agent.client import AgentLink, AgentSilent
from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.stream import SocketStream
from nexus.domain.errors import (
    FileNotInSandbox,
    InvalidInput,
    ProviderError,
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import ExecutionResult, RunRequest

GOOD = {"code": 0, "signal": 0, "timed_out": False, "oom": False, "stopped": False, "stdout": 0, "stderr": 0, "us": 5}
Answers = Callable[[int, int], list[bytes]]
"""Kind and channel of a request: the frames to answer it with."""


class Scripted:
    """The other end: answers each request as told."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair()
        self.socket = theirs
        self.link = AgentLink(SocketStream(mine))
        self.heard: list[tuple[int, int, bytes]] = []
        self.answers: Answers = lambda kind, channel: []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        parser = frames.Parser()
        try:
            while data := self.socket.recv(65536):
                for kind, channel, payload in parser.feed(data):
                    self.heard.append((kind, channel, payload))
                    for answer in self.answers(kind, channel):
                        self.socket.sendall(answer)
        except OSError:
            return

    def close(self) -> None:
        self.link.close()
        self._thread.join(5)
        self.socket.close()
        assert not self._thread.is_alive()


@pytest.fixture
def agent() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


def request(**fields: Any) -> RunRequest:
    return RunRequest(**{"execution_id": "ex_1", "timeout": 5, "code": b"print(1)", **fields})


def at_end(*messages: tuple[int, bytes]) -> Answers:
    """Answers a run, once all of it is there."""

    def answer(kind: int, channel: int) -> list[bytes]:
        return [frames.frame(k, channel, payload) for k, payload in messages] if kind == frames.END else []

    return answer


def exited(**fields: object) -> tuple[int, bytes]:
    return frames.EXITED, frames.pack({**GOOD, **fields})


def test_a_run(agent: Scripted) -> None:
    agent.answers = at_end(
        (frames.ACCEPTED, frames.pack({})),
        (frames.STDOUT, b"out"),
        (frames.STDERR, b"err"),
        exited(code=3, stdout=3, stderr=3),
    )
    heard: list[tuple[str, bytes]] = []
    result = agent.link.run(request(stdin=b"in"), lambda stream, data: heard.append((stream, data)))
    assert result == ExecutionResult(3, b"out", b"err", 3, 3, 0.000005)
    assert heard == [("stdout", b"out"), ("stderr", b"err")]
    assert [kind for kind, _, _ in agent.heard] == [frames.RUN, frames.CODE, frames.DATA, frames.END]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": 7}, (7, None, False, False)),
        ({"signal": 11}, (139, 11, False, False)),
        ({"signal": 9, "timed_out": True}, (124, 9, True, False)),
        ({"signal": 9, "oom": True}, (137, 9, False, True)),
    ],
)
def test_how_a_run_ended(agent: Scripted, fields: dict[str, object], expected: tuple[object, ...]) -> None:
    agent.answers = at_end(exited(**fields))
    result = agent.link.run(request())
    assert (result.exit_code, result.signal, result.timed_out, result.oom_killed) == expected


@pytest.mark.parametrize(
    "messages",
    [
        [(frames.EXITED, b"")],
        [(frames.EXITED, frames.pack([1]))],
        [exited(code=256)],
        [exited(code=-1)],
        [exited(code="0")],
        [exited(signal=99)],
        [exited(us=None)],
        [(frames.STDOUT, b"four"), exited(stdout=3)],
        [(frames.STDOUT, b"x" * 65536)] * 17,
        [(frames.WELCOME, frames.pack({}))],
        [(frames.STDERR, b"")],
        [(frames.ACCEPTED, frames.pack({}))] * 2,
        [(frames.ERROR, b"\xff")],
    ],
    ids=lambda messages: f"{messages[0][0]}-{len(messages)}",
)
def test_nonsense_is_an_unknown_outcome_and_ends_the_link(agent: Scripted, messages: list[tuple[int, bytes]]) -> None:
    agent.answers = at_end(*messages)
    with pytest.raises(ProviderOutcomeUnknown):
        agent.link.run(request())
    assert agent.link.broken


def test_bytes_that_are_no_frames(agent: Scripted) -> None:
    agent.answers = lambda kind, channel: [b"HTTP/1.1 200 OK\r\n\r\n"] if kind == frames.END else []
    with pytest.raises(ProviderOutcomeUnknown):
        agent.link.run(request())


def test_frames_for_nobody_are_dropped(agent: Scripted) -> None:
    def answer(kind: int, channel: int) -> list[bytes]:
        stranger = frames.frame(frames.STDOUT, channel + 1, b"x" * 65536)
        return [*[stranger] * 50, frames.frame(*_on(channel, exited()))] if kind == frames.END else []

    agent.answers = answer
    assert agent.link.run(request()).stdout == b""


def _on(channel: int, message: tuple[int, bytes]) -> tuple[int, int, bytes]:
    return message[0], channel, message[1]


def test_an_end_of_the_stream_is_an_unknown_outcome(agent: Scripted) -> None:
    def answer(kind: int, channel: int) -> list[bytes]:
        if kind == frames.END:
            agent.socket.shutdown(socket.SHUT_RDWR)
        return []

    agent.answers = answer
    with pytest.raises(ProviderOutcomeUnknown):
        agent.link.run(request())


def test_silence_is_noticed(agent: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RUN_GRACE", 0.1)
    begun = time.monotonic()
    with pytest.raises(AgentSilent):
        agent.link.run(request(timeout=0.1))
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("seen", ProviderOutcomeUnknown),
        ("busy", ProviderUnavailable),
        ("unsupported", ProviderUnsupported),
        ("invalid", ProviderInvalidRequest),
        ("not_found", FileNotInSandbox),
        ("too_large", InvalidInput),
        ("refused", InvalidInput),
        ("failed", ProviderError),
        ("something new", ProviderError),
    ],
)
def test_what_the_agent_refuses(agent: Scripted, code: str, error: type[Exception]) -> None:
    agent.answers = at_end((frames.ERROR, frames.pack({"code": code, "message": "m" * 10_000})))
    with pytest.raises(error) as raised:
        agent.link.run(request())
    assert type(raised.value) is error
    assert len(str(raised.value)) < 3000
    assert not agent.link.broken


def test_an_interrupted_wait_stops_the_run_before_it_goes_on(agent: Scripted) -> None:
    def answer(kind: int, channel: int) -> list[bytes]:
        if kind == frames.END:
            return [frames.frame(frames.STDOUT, channel, b"x")]
        return [frames.frame(*_on(channel, exited(signal=9, stopped=True)))] if kind == frames.STOP else []

    agent.answers = answer

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agent.link.run(request(), interrupt)
    assert agent.heard[-1][0] == frames.STOP
    assert not agent.link.broken


def test_several_threads_share_a_link(agent: Scripted) -> None:
    ready = threading.Barrier(9)
    results: dict[int, bytes] = {}
    held: list[int] = []
    lock = threading.Lock()

    def answer(kind: int, channel: int) -> list[bytes]:
        """Keeps everyone waiting until all have asked, then answers the last first."""
        if kind != frames.END:
            return []
        with lock:
            held.append(channel)
        if len(held) < 8:
            return []
        out = []
        for number in reversed(held):
            out.append(frames.frame(frames.STDOUT, number, b"%d" % number))
            out.append(frames.frame(*_on(number, exited(stdout=len(b"%d" % number)))))
        return out

    agent.answers = answer

    def run(n: int) -> None:
        ready.wait()
        results[n] = agent.link.run(request(execution_id=f"ex_{n}")).stdout

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join(10)
    assert sorted(results.values()) == sorted(b"%d" % n for n in held)
    assert len(set(results.values())) == 8


def test_a_run_that_is_too_large_is_not_sent(agent: Scripted) -> None:
    for fields in ({"code": b"x" * (frames.MAX_CODE + 1)}, {"stdin": b"x" * (frames.MAX_STDIN + 1)}):
        with pytest.raises(InvalidInput):
            agent.link.run(request(**fields))
    assert agent.heard == []


def test_a_file_that_grows_beyond_the_limit(agent: Scripted) -> None:
    def answer(kind: int, channel: int) -> list[bytes]:
        if kind == frames.READ:
            return [frames.frame(frames.CONTENT, channel, b"x" * 100)] * 3
        return [frames.frame(frames.DONE, channel, frames.pack({}))] if kind == frames.STOP else []

    agent.answers = answer
    with pytest.raises(InvalidInput):
        list(agent.link.read_file("a", 250))
    assert not agent.link.broken


def test_reading_that_is_left_early_is_stopped(agent: Scripted) -> None:
    def answer(kind: int, channel: int) -> list[bytes]:
        if kind == frames.READ:
            return [frames.frame(frames.CONTENT, channel, b"x")] * 2
        return [frames.frame(frames.DONE, channel, frames.pack({}))] if kind == frames.STOP else []

    agent.answers = answer
    chunks = agent.link.read_file("a", 250)
    assert next(chunks) == b"x"
    chunks.close()  # type: ignore[attr-defined]
    assert agent.heard[-1][0] == frames.STOP
