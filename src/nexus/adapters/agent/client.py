"""The manager's side of the agent protocol: one link over any byte stream, shared by any number of threads.

Whatever comes from the guest is untrusted: its size is bounded, its types are checked, and what the protocol does not allow breaks the link.
No thread of its own: of the threads that wait for an answer, one reads and hands the others what is theirs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType

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
from nexus.domain.provider import ExecutionResult, OutputSink, RunRequest, Stream

ANSWER_TIME = 15.0
"""Seconds within which the agent answers what takes it no time."""
RUN_GRACE = 5.0
"""Seconds past a run's time-out after which its answer is given up."""
_QUEUE = 8 * 1024 * 1024
_STREAMS: Mapping[int, Stream] = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}
_LAST = (frames.EXITED, frames.DONE, frames.ERROR)
_TIMED_OUT = 124


class AgentSilent(ProviderOutcomeUnknown):
    """The agent did not answer in time: what it was doing is unknown until it is made sure that nothing runs."""


class _Channel:
    def __init__(self, number: int) -> None:
        self.number = number
        self.queue: deque[tuple[int, bytes]] = deque()
        self.size = 0
        self.over = False
        """The agent has said its last word on it."""


class AgentLink:
    """A connection to an agent. Methods block and may be called from several threads at once."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._parser = frames.Parser()
        self._channels: dict[int, _Channel] = {}
        self._numbers = 0
        self._condition = threading.Condition()
        self._sending = threading.Lock()
        self._reading = False
        self._broken: str | None = None

    def __enter__(self) -> AgentLink:
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

    # --- operations ---

    def hello(self, *, within: float = ANSWER_TIME) -> dict[str, object]:
        """Who is there."""
        return self._ask(frames.HELLO, {}, frames.WELCOME, within)

    def setup(self, env: Mapping[str, str], expires_at: datetime | None = None) -> bool:
        """Give an agent that awaits it the environment of all runs and its deadline. True: it had been set up."""
        fields: dict[str, object] = {"env": dict(env)}
        if expires_at is not None:
            fields["ttl"] = _milliseconds_until(expires_at)
        try:
            packed = frames.pack(fields)
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidInput(f"The environment cannot be sent: {error}") from None
        with self._open() as channel:
            parts = frames.frames(frames.SETUP, channel.number, packed)
            parts.append(frames.frame(frames.END, channel.number))
            try:
                self._send(b"".join(parts))
            except OSError as error:
                raise ProviderUnavailable("The connection to the sandbox broke") from error
            return self._expect(channel, frames.DONE).get("known") is True

    def ping(self, *, within: float = ANSWER_TIME) -> None:
        """The agent answers. Raises AgentSilent after `within` seconds."""
        self._ask(frames.PING, {}, within=within)

    def extend(self, expires_at: datetime) -> None:
        """Move the sandbox's own deadline; an earlier one than it has changes nothing."""
        self._ask(frames.EXTEND, {"ttl": _milliseconds_until(expires_at)})

    def time_left(self) -> float | None:
        """Seconds until the sandbox ends on its own account; None when it never does."""
        left = self._ask(frames.PING, {}).get("ttl")
        return left / 1000 if isinstance(left, int) else None

    def extend_later(self, expires_at: datetime) -> Callable[[], None]:
        """Send an extension to an agent that sleeps; call the result when it is awake, to hear that it took effect."""
        with contextlib.ExitStack() as stack:
            channel = stack.enter_context(self._open())
            self._send_fields(frames.EXTEND, channel, {"ttl": _milliseconds_until(expires_at)})
            rest = stack.pop_all()

        def wait() -> None:
            with rest:
                self._expect(channel, frames.DONE)

        return wait

    def cancel(self, execution_id: str) -> bool:
        """Everything of that run is dead when this returns; it never starts if it has not yet. Whether it was known."""
        return self._ask(frames.CANCEL, {"id": execution_id}).get("known") is True

    def quit(self) -> None:
        """End the sandbox; returns at once."""
        with self._open() as channel:
            self._send(frames.frame(frames.QUIT, channel.number, frames.pack({})))

    def run(
        self, request: RunRequest, on_output: OutputSink | None = None, on_accepted: Callable[[], None] | None = None
    ) -> ExecutionResult:
        """As `Provider.run`. ProviderUnavailable: it has not started; ProviderOutcomeUnknown: it may have.

        When the wait is cut short the run is killed first, unless the connection is gone as well: then the agent does it on its own.
        """
        with self._open() as channel:
            try:
                self._send(self._request(request, channel.number))
            except OSError as error:
                # Without the END that comes last the agent starts nothing; whether it was among what was sent is not known.
                self._break(str(error))
                raise ProviderOutcomeUnknown("The connection to the sandbox broke while the run was sent") from error
            try:
                return self._follow(channel, request, on_output, on_accepted)
            except AgentSilent:
                raise
            except BaseException:
                if not channel.over:
                    self._stop(channel)
                raise

    def read_file(self, path: str, limit: int) -> Iterator[bytes]:
        """The file's bytes. Fails at the call when the file cannot be read; later, InvalidInput, when it grows beyond `limit`."""
        chunks = self._read(path, limit)
        first = next(chunks, b"")
        return _chain(first, chunks)

    def write_file(self, path: str, chunks: Iterable[bytes], limit: int) -> int:
        """Replace the file; nothing is changed when this fails before its end. InvalidInput beyond `limit` bytes."""
        with self._open() as channel:
            self._send_fields(frames.WRITE, channel, {"path": path, "limit": limit})
            self._expect(channel, frames.ACCEPTED)
            total = 0
            try:
                for chunk in chunks:
                    total += len(chunk)
                    if total > limit:
                        raise InvalidInput(f"The file is larger than {limit} bytes", limit=limit)
                    self._send(b"".join(frames.frames(frames.DATA, channel.number, chunk)))
            except BaseException:
                self._stop(channel)
                raise
            self._send(frames.frame(frames.END, channel.number))
            size = self._expect(channel, frames.DONE).get("size")
            return size if isinstance(size, int) else total

    # --- a run ---

    def _request(self, request: RunRequest, number: int) -> bytes:
        if (request.code is None) == (request.argv is None):
            raise ProviderInvalidRequest("A run is either code or a command")
        header: dict[str, object] = {
            "id": request.execution_id,
            "timeout": int(request.timeout * 1000),
            "language": request.language,
            "mode": request.mode,
            "env": dict(request.env),
        }
        if request.argv is not None:
            header["argv"] = list(request.argv)
        if request.keep_until is not None:
            header["ttl"] = _milliseconds_until(request.keep_until)
        try:
            packed = frames.pack(header)
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidInput(f"The run cannot be sent: {error}") from None
        code, stdin = request.code or b"", request.stdin
        for what, data, most in (("code", code, frames.MAX_CODE), ("stdin", stdin, frames.MAX_STDIN)):
            if len(data) > most:
                raise InvalidInput(f"{what} is larger than {most} bytes", limit=most)
        parts = []
        for kind, data in ((frames.RUN, packed), (frames.CODE, code), (frames.DATA, stdin)):
            parts += frames.frames(kind, number, data)
        parts.append(frames.frame(frames.END, number))
        return b"".join(parts)

    def _follow(
        self,
        channel: _Channel,
        request: RunRequest,
        on_output: OutputSink | None,
        on_accepted: Callable[[], None] | None,
    ) -> ExecutionResult:
        kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        deadline = time.monotonic() + request.timeout + RUN_GRACE
        while True:
            kind, payload = self._receive(channel, deadline)
            if kind in _STREAMS:
                stream = _STREAMS[kind]
                if len(kept[stream]) + len(payload) > frames.OUTPUT_CAP:
                    raise self._malformed("more output than was agreed")
                kept[stream] += payload
                if on_output is not None:
                    on_output(stream, payload)
            elif kind == frames.ACCEPTED:
                if on_accepted is not None:
                    on_accepted()
            elif kind == frames.EXITED:
                return self._result(payload, bytes(kept["stdout"]), bytes(kept["stderr"]))
            elif kind == frames.ERROR:
                raise self._error(payload)
            else:
                raise self._malformed("an answer that does not belong to a run")

    def _result(self, payload: bytes, stdout: bytes, stderr: bytes) -> ExecutionResult:
        fields = self._fields(payload)
        numbers = [fields.get(name) for name in ("code", "signal", "stdout", "stderr", "us")]
        if not all(isinstance(x, int) and x >= 0 for x in numbers):
            raise self._malformed("an end of a run that makes no sense")
        code, signal, stdout_bytes, stderr_bytes, microseconds = (x for x in numbers if isinstance(x, int))
        if code > 255 or signal > 64 or stdout_bytes < len(stdout) or stderr_bytes < len(stderr):
            raise self._malformed("an end of a run that makes no sense")
        timed_out = fields.get("timed_out") is True
        return ExecutionResult(
            exit_code=_TIMED_OUT if timed_out else 128 + signal if signal else code,
            stdout=stdout,
            stderr=stderr,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
            duration=microseconds / 1_000_000,
            timed_out=timed_out,
            signal=signal or None,
            oom_killed=fields.get("oom") is True,
        )

    def _stop(self, channel: _Channel) -> None:
        """End the operation on this channel and wait until it is dead; nothing to do when the connection is gone."""
        if self.broken:
            return
        try:
            self._send(frames.frame(frames.STOP, channel.number))
            deadline = time.monotonic() + RUN_GRACE
            while self._receive(channel, deadline)[0] not in _LAST:
                pass
        except (ProviderError, OSError):
            self._break("given up")

    # --- a file ---

    def _read(self, path: str, limit: int) -> Iterator[bytes]:
        with self._open() as channel:
            self._send_fields(frames.READ, channel, {"path": path, "limit": limit})
            total = 0
            try:
                while True:
                    kind, payload = self._receive(channel, time.monotonic() + ANSWER_TIME)
                    if kind == frames.CONTENT:
                        total += len(payload)
                        if total > limit:
                            raise InvalidInput(f"The file is larger than {limit} bytes", limit=limit)
                        yield payload
                        continue
                    if kind == frames.DONE:
                        return
                    raise self._error(payload) if kind == frames.ERROR else self._malformed("not a file's content")
            finally:
                if not channel.over:
                    self._stop(channel)

    # --- questions and answers ---

    def _ask(
        self, kind: int, fields: dict[str, object], answer: int = frames.DONE, within: float = ANSWER_TIME
    ) -> dict[str, object]:
        with self._open() as channel:
            self._send_fields(kind, channel, fields)
            return self._expect(channel, answer, within)

    def _expect(self, channel: _Channel, answer: int, within: float = ANSWER_TIME) -> dict[str, object]:
        while True:
            kind, payload = self._receive(channel, time.monotonic() + within)
            if kind == frames.ERROR:
                raise self._error(payload)
            if kind == answer:
                return self._fields(payload)
            if kind != frames.ACCEPTED:
                raise self._malformed("an unexpected answer")

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
    def _open(self) -> Iterator[_Channel]:
        with self._condition:
            self._numbers = self._numbers % 0xFFFFFFFF + 1
            channel = self._channels[self._numbers] = _Channel(self._numbers)
        try:
            yield channel
        finally:
            with self._condition:
                self._channels.pop(channel.number, None)
                self._condition.notify_all()

    def _send_fields(self, kind: int, channel: _Channel, fields: dict[str, object]) -> None:
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
                self._stream.send(data)
            except BaseException as error:
                self._break(f"a message was cut off: {error!r}")  # what follows would be read as its rest
                raise

    def _receive(self, channel: _Channel, deadline: float) -> tuple[int, bytes]:
        while True:
            with self._condition:
                if channel.queue:
                    kind, payload = channel.queue.popleft()
                    channel.size -= len(payload)
                    channel.over = kind in _LAST
                    self._condition.notify_all()
                    return kind, payload
                if self._broken is not None:
                    raise ProviderOutcomeUnknown(f"The connection to the sandbox broke: {self._broken}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AgentSilent("The sandbox did not answer in time")
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
        try:
            data = self._stream.receive(timeout)
            found = self._parser.feed(data)
        except TimeoutError:
            return
        except (OSError, ValueError, frames.Malformed) as error:
            self._break(str(error) or type(error).__name__)
            return
        if not data:
            self._break("the sandbox closed it")
        for kind, number, payload in found:
            self._deliver(kind, number, payload)

    def _deliver(self, kind: int, number: int, payload: bytes) -> None:
        with self._condition:
            channel = self._channels.get(number)
            if channel is None:
                return
            channel.queue.append((kind, payload))
            channel.size += len(payload)
            # A thread that takes its answers slowly holds the others up rather than having them pile up in memory.
            while channel.size > _QUEUE and number in self._channels and self._broken is None:
                self._condition.wait(1.0)

    def _break(self, why: str) -> None:
        with self._condition:
            if self._broken is None:
                self._broken = why
                self._stream.close()
            self._condition.notify_all()


def _milliseconds_until(moment: datetime) -> int:
    return int((moment - datetime.now(UTC)).total_seconds() * 1000)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
        yield from rest
