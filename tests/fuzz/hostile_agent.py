"""An agent that has gone over to the enemy, as a byte stream: what it sends is a list of moves, its time is virtual.

Real time does not pass, so that a wait that would never end is found out at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from nexus.adapters.agent.guest import frames

FOREIGN = b"what another run wrote"
HONEST_TTL = 123_456
_PATIENCE = 10_000
"""So many pieces taken from one stream of answers are an endless wait."""


class Time:
    """Stands in for the module `time` where the link looks at the clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass(frozen=True)
class Move:
    """One thing that the agent does when it was asked something."""

    what: str
    kind: int = 0
    payload: bytes = b""
    channel: int = 0
    """Relative to the one that it was asked on."""
    gap: float = 0.0
    """Virtual seconds before it."""

    def pieces(self, asked: int) -> Iterator[bytes]:
        number = (asked + self.channel) % 2**32
        if self.what == "frame":
            yield frames.frame(self.kind, number, self.payload)
        elif self.what == "bytes":
            yield self.payload
        elif self.what == "cut":
            yield frames.frame(self.kind, number, self.payload + b"x")[:-1]
        elif self.what == "length":
            yield frames.HEADER.pack(frames.MAGIC, self.kind, number, int.from_bytes(self.payload[:4], "big"))
        elif self.what == "forever":
            piece = frames.frame(self.kind, number, self.payload)
            yield from itertools.repeat(piece if self.gap else piece * 50)


class HostileStream:
    """A `ByteStream`. `moves` answer the request that counts; once `honest`, everything is answered as it should be."""

    def __init__(self, time: Time, moves: list[Move], *, reads: bool = True) -> None:
        self._time = time
        self._moves = moves
        self._reads = reads
        self._parser = frames.Parser()
        self._answers: Iterator[tuple[float, bytes]] = iter(())
        self._begun = False
        self._taken = 0
        self.honest = False
        self.closed = False
        self.ended = False

    def send(self, data: bytes, timeout: float) -> None:
        if self.closed:
            raise BrokenPipeError("closed")
        if not self._reads and not self.honest:
            self._time.now += timeout
            raise TimeoutError("it does not read")
        for kind, channel, _ in self._parser.feed(data):
            if self.honest:
                self._say(self._honestly(kind, channel))
            elif not self._begun and kind in _ASKING:
                self._begun = True
                self._say((move.gap, piece) for move in self._moves for piece in move.pieces(channel))

    def turn_honest(self) -> None:
        """Say at once some of what was still to come, and then what is asked."""
        self.honest = True
        self._answers = iter([(0.0, piece) for _, piece in itertools.islice(self._answers, 20)])

    def _say(self, answers: Iterator[tuple[float, bytes]] | list[tuple[float, bytes]]) -> None:
        self._answers = itertools.chain(self._answers, answers)

    @staticmethod
    def _honestly(kind: int, channel: int) -> list[tuple[float, bytes]]:
        if kind in (frames.PING, frames.EXTEND):
            return [(0.0, frames.frame(frames.DONE, channel, frames.pack({"ttl": HONEST_TTL})))]
        return []

    def receive(self, timeout: float | None) -> bytes:
        if self.closed:
            raise OSError("closed")
        self._taken += 1
        assert self._taken < _PATIENCE, "it takes what comes for ever"
        gap, piece = next(self._answers, (float("inf"), b""))
        if gap > (timeout or 0.0):
            if gap != float("inf"):
                self._say([])
                self._answers = itertools.chain([(gap - (timeout or 0.0), piece)], self._answers)
            elif self.ended:
                return b""
            self._time.now += timeout or 0.0
            raise TimeoutError
        self._time.now += gap + 0.02
        return piece

    def close(self) -> None:
        self.closed = True


_ASKING = (frames.HELLO, frames.END, frames.CANCEL, frames.PING, frames.EXTEND, frames.READ, frames.WRITE)

_KINDS = st.sampled_from(range(64, 72)) | st.integers(0, 255)
_NUMBERS = st.sampled_from([0, 1, -1, 255, 256, 2**31, 2**63 - 1, -(2**63)])
_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), _NUMBERS, st.text(max_size=8), st.binary(max_size=8), st.lists(_NUMBERS, max_size=3)
)
_NAMES = st.sampled_from(
    ["code", "signal", "timed_out", "oom", "stopped", "stdout", "stderr", "us", "message", "ttl", "known", "size"]
)
_FIELDS = st.dictionaries(_NAMES, _VALUES, max_size=8).map(frames.pack)
_GOOD_END = frames.pack(
    {"code": 0, "signal": 0, "timed_out": False, "oom": False, "stopped": False, "stdout": 3, "stderr": 0, "us": 5}
)
_REFUSAL = st.sampled_from(
    ["seen", "busy", "unready", "unsupported", "invalid", "not_found", "too_large", "refused", "failed", "\x1b[31m"]
).map(lambda code: frames.pack({"code": code, "message": "m\x1b[31m" * 500}))
_PAYLOADS = st.one_of(
    _FIELDS, _REFUSAL, st.just(_GOOD_END), st.just(b""), st.just(b"out"), st.binary(max_size=40), st.just(b"x" * 65536)
)
_GAPS = st.sampled_from([0.0, 0.0, 0.0, 0.1, 3.0, 14.0, 1e6])
_OWN = st.builds(Move, st.sampled_from(["frame", "frame", "frame", "cut"]), _KINDS, _PAYLOADS, st.just(0), _GAPS)
_ANOTHERS = st.builds(Move, st.just("frame"), _KINDS, st.just(FOREIGN), st.sampled_from([1, -1, 7, 2**31]), _GAPS)
_GARBAGE = st.builds(Move, st.just("bytes"), st.just(0), st.binary(max_size=60), st.just(0), _GAPS)
_LENGTHS = st.builds(Move, st.just("length"), _KINDS, st.binary(min_size=4, max_size=4), st.just(0), _GAPS)
# Never on the channel that is opened next: a well-formed answer there, ahead of the question, is a lie like any other
# about itself, and no link could tell it from the answer.
_ENDLESS = st.builds(Move, st.just("forever"), _KINDS, _PAYLOADS, st.sampled_from([0, 0, 0, 7]), _GAPS)

MOVES = st.lists(st.one_of(_OWN, _OWN, _OWN, _ANOTHERS, _GARBAGE, _LENGTHS, _ENDLESS), max_size=8)
