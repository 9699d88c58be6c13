"""A connection to an agent, and the channels on it. No thread of its own: of the threads that wait, one reads for all.

Whatever comes from the guest is untrusted: its size is bounded, its types are checked, and what the protocol does not
allow breaks the link.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.stream import ByteStream
from nexus.domain.errors import (
    FileNotInSandbox,
    InvalidInput,
    ProviderError,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)

ANSWER_TIME = 15.0
"""Seconds within which the agent answers what takes it no time."""
SLOWEST = 1024 * 1024
"""Bytes per second that the agent takes at least; sending may last that much longer than an answer."""
LAST = (frames.EXITED, frames.DONE, frames.ERROR)
"""The kinds of frame after which nothing more is said on a channel."""
_QUEUE = 8 * 1024 * 1024
_FRAME = 128
"""Bytes that a frame takes in memory beside its payload: many empty ones are a flood as well."""

_ATTENTION = 0.5
"""Seconds of one wait: a signal that comes just before a wait begins is noticed only when it ends."""


class AgentSilent(ProviderOutcomeUnknown):
    """The agent did not answer in time: what it was doing is unknown until it is made sure that nothing runs."""


class Channel:
    """One operation: what came for it and was not taken yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: deque[tuple[int, bytes]] = deque()
        self.size = 0
        self.over = False
        """The agent has said its last word on it."""


class Link:
    """Methods block and may be called from several threads at once."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._parser = frames.Parser()
        self._channels: dict[int, Channel] = {}
        self._arrived: deque[tuple[int, int, bytes]] = deque()
        """Read and not delivered yet; only the thread that reads touches it."""
        self._numbers = 0
        self._condition = threading.Condition()
        self._sending = threading.Lock()
        self._reading = False
        self._broken: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def broken(self) -> bool:
        """Nothing can be sent or received any more."""
        return self._broken is not None

    def close(self) -> None:
        """Drop the connection; the agent ends the runs of a dedicated one."""
        self._break("closed")

    # --- questions and answers ---

    def _ask(
        self, kind: int, fields: dict[str, object], answer: int = frames.DONE, within: float = ANSWER_TIME
    ) -> dict[str, object]:
        with self._open() as channel:
            self._send_fields(kind, channel, fields)
            return self._expect(channel, answer, within)

    def _expect(self, channel: Channel, answer: int, within: float = ANSWER_TIME) -> dict[str, object]:
        kind, payload = self._receive(channel, time.monotonic() + within)
        if kind == frames.ERROR:
            raise self._error(payload)
        if kind != answer:
            raise self._malformed("an unexpected answer")
        return self._fields(payload)

    def _error(self, payload: bytes) -> ProviderError | InvalidInput | FileNotInSandbox:
        fields = self._fields(payload)
        code, message = fields.get("code"), str(fields.get("message", ""))[:2000]
        if code == "seen":
            return ProviderOutcomeUnknown("This run was sent before; it does not run again")
        if code == "busy":
            return ProviderUnavailable(f"The sandbox cannot start another run now: {message}")
        if code == "unready":
            return ProviderNotRunning(message)
        if code == "unsupported":
            return ProviderUnsupported(message)
        if code == "not_found":
            return FileNotInSandbox(f"No such file in the sandbox: {message}")
        if code in ("too_large", "refused"):
            return InvalidInput(f"The sandbox refused the file: {message}")
        if code == "invalid":
            return ProviderInvalidRequest(message)
        return ProviderError(f"The sandbox could not do it: {message}")

    def _fields(self, payload: bytes) -> dict[str, object]:
        try:
            return frames.unpack_dict(payload)
        except frames.Malformed as error:
            raise self._malformed(str(error)) from None

    def _malformed(self, why: str) -> ProviderOutcomeUnknown:
        self._break(why)
        return ProviderOutcomeUnknown(f"The sandbox answered what the protocol does not allow: {why}")

    # --- the wire ---

    @contextmanager
    def _open(self) -> Iterator[Channel]:
        with self._condition:
            self._numbers = self._numbers % 0xFFFFFFFF + 1
            channel = self._channels[self._numbers] = Channel(self._numbers)
        try:
            yield channel
        finally:
            with self._condition:
                self._channels.pop(channel.number, None)
                self._condition.notify_all()

    def _send_fields(self, kind: int, channel: Channel, fields: dict[str, object]) -> None:
        try:
            payload = frames.pack(fields)
        except UnicodeEncodeError as error:
            raise InvalidInput(f"Not valid text: {error}") from None
        if len(payload) > frames.MAX_PAYLOAD:
            raise InvalidInput("A value is too long")
        try:
            self._send(frames.frame(kind, channel.number, payload))
        except OSError as error:
            self._break(str(error))
            raise ProviderUnavailable("The connection to the sandbox broke") from error

    def _send(self, data: bytes) -> None:
        with self._sending:
            if self._broken is not None:
                raise BrokenPipeError(self._broken)
            try:
                self._stream.send(data, ANSWER_TIME + len(data) / SLOWEST)
            except BaseException as error:
                self._break(f"a message was cut off: {error!r}")  # what follows would be read as its rest
                raise

    @staticmethod
    @contextmanager
    def _told(kind: type[ProviderError], message: str) -> Iterator[None]:
        """What went wrong on the wire, as an error of the provider port."""
        try:
            yield
        except OSError as error:
            raise kind(message) from error

    def _receive(self, channel: Channel, deadline: float) -> tuple[int, bytes]:
        while True:
            with self._condition:
                if channel.queue:
                    kind, payload = channel.queue.popleft()
                    channel.size -= len(payload) + _FRAME
                    channel.over = kind in LAST
                    self._condition.notify_all()
                    return kind, payload
                if self._broken is not None:
                    raise ProviderOutcomeUnknown(f"The connection to the sandbox broke: {self._broken}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AgentSilent("The sandbox did not answer in time")
                left = min(left, _ATTENTION)
                if self._reading:
                    self._condition.wait(left)
                    continue
                self._reading = True
            try:
                self._read_once(left)
            finally:
                with self._condition:
                    self._reading = False
                    self._condition.notify_all()

    def _read_once(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        if self._arrived:
            self._deliver_all(until)
            return
        try:
            data = self._stream.receive(timeout)
            self._arrived.extend(self._parser.feed(data))
        except TimeoutError:
            return
        except (OSError, ValueError, frames.Malformed) as error:
            self._break(str(error) or type(error).__name__)
            return
        if not data:
            self._break("the sandbox closed it")
        self._deliver_all(until)

    def _deliver_all(self, until: float) -> None:
        """Hand on what was read. A thread that takes its answers slowly holds the others up, each for no longer than it
        would wait anyhow, rather than having them pile up in memory."""
        with self._condition:
            while self._arrived and self._broken is None:
                kind, number, payload = self._arrived[0]
                channel = self._channels.get(number)
                if channel is not None and channel.size > _QUEUE:
                    left = until - time.monotonic()
                    if left <= 0:
                        return
                    self._condition.wait(left)
                    continue
                self._arrived.popleft()
                if channel is not None:
                    channel.queue.append((kind, payload))
                    channel.size += len(payload) + _FRAME

    def _break(self, why: str) -> None:
        with self._condition:
            if self._broken is None:
                self._broken = why
                self._stream.close()
            self._condition.notify_all()
