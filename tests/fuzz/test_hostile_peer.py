"""A hostile peer talks to a real agent: nothing of it harms the sandbox, or what anybody else does in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexus.adapters.agent.client import AgentLink
from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.stream import connect_unix
from nexus.adapters.providers.local import LocalProvider
from nexus.domain.errors import ProviderGone
from nexus.domain.provider import Observed, RunRequest, SandboxSpec, Template
from tests.fuzz.budget import budget

INSTALLATION: Final = "fuzz"


class Victim:
    """A sandbox that is made anew when something has ended it, so that a find can be made smaller."""

    def __init__(self, state: Path) -> None:
        self.provider = LocalProvider(state)
        self._seen: Observed | None = None

    def alive(self) -> Observed:
        try:
            if self._seen is not None and self.provider.inspect(self._seen.ref).condition == "running":
                return self._seen
        except ProviderGone:
            pass
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation=INSTALLATION,
            name="fuzz",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=30),
            network="none",
        )
        self._seen = self.provider.ensure(spec)
        return self._seen

    def folder(self) -> str:
        return os.fspath(self.provider._folder(self.alive().ref).path)

    def run(self) -> bytes:
        request = RunRequest(f"ex_{uuid.uuid4().hex}", 20, "bash", b"echo well")
        return self.provider.run(self.alive().ref, request).stdout


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("state"))
    yield victim
    for seen in list(victim.provider.owned(INSTALLATION)):
        victim.provider.destroy(seen.ref)


Message = tuple[int, int, Any]
"""Kind, channel, and fields or bytes."""

_NUMBERS = st.sampled_from([0, 1, -1, 1000, 5000, 2**31, 2**62, 2**63 - 1, -(2**63)])
_WORDS = st.sampled_from(["", "/", "x", "\0", "a\0b", "python", "bash", "javascript", "=", "\udcff", "x" * 4000])
_ENV = st.dictionaries(st.sampled_from(["PATH", "A", "", "=", "A=B", "\0", "HOME"]), _WORDS, max_size=3)
_ANY: st.SearchStrategy[Any] = st.one_of(st.none(), st.booleans(), _NUMBERS, _WORDS, st.lists(_WORDS, max_size=3), _ENV)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "id": _WORDS | st.sampled_from(["ex_1", "ex_2"]) | _ANY,
        "timeout": _NUMBERS | _ANY,
        "language": _WORDS | _ANY,
        "argv": st.lists(_WORDS, max_size=3) | _ANY,
        "mode": st.sampled_from(["warm", "fresh"]) | _ANY,
        "env": _ENV | _ANY,
        "ttl": _NUMBERS | _ANY,
        "path": _WORDS | _ANY,
        "limit": _NUMBERS | _ANY,
    },
)
_ASKED = [kind for kind in range(16) if kind != frames.QUIT]  # which ends the sandbox, as it is meant to
_BODIES = _FIELDS | st.binary(max_size=30) | st.just(b"exit 3")
_MESSAGES: st.SearchStrategy[Message] = st.tuples(
    st.sampled_from(_ASKED) | st.integers(14, 255), st.sampled_from([0, 1, 1, 2, 2**32 - 1]), _BODIES
)
RUN: Final = {"id": "ex_1", "timeout": 5000, "language": "bash"}


@budget(120)
@given(st.lists(_MESSAGES, max_size=8), st.binary(max_size=20))
# What was found, each of which ended the sandbox: a deadline that does not fit into the answer that tells it, and a
# search path that no file system knows.
@example([(frames.EXTEND, 1, {"ttl": 2**63 - 1})], b"")
@example([(frames.RUN, 1, {**RUN, "env": {"PATH": "\0"}}), (frames.END, 1, b"")], b"")
@example([(frames.RUN, 1, {**RUN, "argv": ["a\0b"]}), (frames.END, 1, b"")], b"")
@example([(frames.RUN, 1, RUN), (frames.END, 1, b""), (frames.STOP, 1, b"")], b"NX")
def test_whatever_a_client_says(victim: Victim, messages: list[Message], rest: bytes) -> None:
    folder, boot = victim.folder(), victim.alive().incarnation
    with AgentLink(connect_unix(folder, "agent", 5)) as good:
        hostile = connect_unix(folder, "agent", 5)
        for kind, channel, body in messages:
            hostile.send(frames.frame(kind, channel, body if isinstance(body, bytes) else frames.pack(body)), 5)
        hostile.send(rest, 5)
        good.ping(within=5)
        assert (good.time_left() or 0) > 0
        hostile.close()
        good.ping(within=5)
    assert victim.alive().incarnation == boot, "the agent ended"


def test_the_sandbox_still_works(victim: Victim) -> None:
    assert victim.run() == b"well\n"


def test_who_does_not_listen_is_not_listened_to(victim: Victim) -> None:
    """Answers that nobody takes must not pile up in the agent."""
    hostile = connect_unix(victim.folder(), "agent", 5)
    questions = b"".join(frames.frame(frames.HELLO, n, frames.pack({})) for n in range(1000)) * 100
    with pytest.raises(TimeoutError):
        hostile.send(questions, 2)
    assert not hostile._writable.poll(1000), "it goes on reading"
    hostile.close()
    assert victim.run() == b"well\n"
