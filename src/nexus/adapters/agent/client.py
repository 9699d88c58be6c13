"""What the manager asks of an agent: runs, files, deadlines; as values and errors of the provider port."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.link import ANSWER_TIME, LAST, AgentSilent, Channel, Link
from nexus.domain.errors import (
    InvalidInput,
    ProviderError,
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
)
from nexus.domain.provider import ExecutionResult, OutputSink, RunRequest, Stream

__all__ = ["ANSWER_TIME", "RUN_GRACE", "AgentLink", "AgentSilent"]

RUN_GRACE = 5.0
"""Seconds past a run's time-out after which its answer is given up."""
_STREAMS: Mapping[int, Stream] = {frames.STDOUT: "stdout", frames.STDERR: "stderr"}
_TIMED_OUT = 124
_SLOWEST_FILE = 4096
"""Bytes per second that a file's content comes at, at least."""


class AgentLink(Link):
    """A connection to an agent, with what can be asked of it."""

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
            self._send_fields(frames.QUIT, channel, {})

    def run(
        self, request: RunRequest, on_output: OutputSink | None = None, on_accepted: Callable[[], None] | None = None
    ) -> ExecutionResult:
        """As `Provider.run`. ProviderUnavailable: it has not started; ProviderOutcomeUnknown: it may have.

        When the wait is cut short the run is killed first, unless the connection is gone as well: then the agent does
        it on its own.
        """
        with self._open() as channel:
            try:
                self._send(self._request(request, channel.number))
            except OSError as error:
                # Without the END that comes last the agent starts nothing; whether it was among what was sent is not
                # known.
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
        """The file's bytes.

        Fails at the call when the file cannot be read; later, InvalidInput, when it grows beyond `limit`.
        """
        chunks = self._read(path, limit)
        first = next(chunks, b"")
        return _chain(first, chunks)

    def write_file(self, path: str, chunks: Iterable[bytes], limit: int) -> int:
        """Replace the file; nothing is changed when this fails before its end. InvalidInput beyond `limit` bytes."""
        with self._open() as channel:
            self._send_fields(frames.WRITE, channel, {"path": path, "limit": limit})
            self._expect(channel, frames.ACCEPTED)
            total = 0
            broke = "The connection to the sandbox broke while the file was sent"
            try:
                for chunk in chunks:
                    total += len(chunk)
                    if total > limit:
                        raise InvalidInput(f"The file is larger than {limit} bytes", limit=limit)
                    with self._told(ProviderUnavailable, broke):  # without its END nothing is changed
                        self._send(b"".join(frames.frames(frames.DATA, channel.number, chunk)))
            except BaseException:
                self._stop(channel)
                raise
            with self._told(ProviderOutcomeUnknown, broke):
                self._send(frames.frame(frames.END, channel.number))
            if self._expect(channel, frames.DONE).get("size") != total:
                raise self._malformed("another size than was sent")
            return total

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
        if request.session is not None:
            header["session"] = request.session
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
        channel: Channel,
        request: RunRequest,
        on_output: OutputSink | None,
        on_accepted: Callable[[], None] | None,
    ) -> ExecutionResult:
        kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        deadline = time.monotonic() + request.timeout + RUN_GRACE
        accepted = False
        while True:
            kind, payload = self._receive(channel, deadline)
            if kind in _STREAMS:
                stream = _STREAMS[kind]
                if not payload or len(kept[stream]) + len(payload) > frames.OUTPUT_CAP:
                    raise self._malformed("more output than was agreed" if payload else "output of no bytes")
                kept[stream] += payload
                if on_output is not None:
                    on_output(stream, payload)
            elif kind == frames.ACCEPTED and not accepted:
                accepted = True
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
            session_started=fields.get("session_started") is True,
        )

    def _stop(self, channel: Channel) -> None:
        """End the operation on this channel and wait until it is dead; nothing to do when the connection is gone."""
        if self.broken:
            return
        try:
            self._send(frames.frame(frames.STOP, channel.number))
            deadline = time.monotonic() + RUN_GRACE
            while self._receive(channel, deadline)[0] not in LAST:
                pass
        except (ProviderError, OSError):
            self._break("given up")

    # --- a file ---

    def _read(self, path: str, limit: int) -> Iterator[bytes]:
        with self._open() as channel:
            self._send_fields(frames.READ, channel, {"path": path, "limit": limit})
            total, patience = 0, ANSWER_TIME
            try:
                while True:
                    begun = time.monotonic()
                    kind, payload = self._receive(channel, begun + patience)
                    if kind == frames.CONTENT and payload:
                        total += len(payload)
                        # A byte now and then does not keep a reader waiting for ever.
                        waited = time.monotonic() - begun
                        patience = min(ANSWER_TIME, patience - waited + len(payload) / _SLOWEST_FILE)
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


def _milliseconds_until(moment: datetime) -> int:
    return int((moment - datetime.now(UTC)).total_seconds() * 1000)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
        yield from rest
