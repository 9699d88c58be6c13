"""One operation of a client: a run, or a file being read or written. What it was asked, what it sends back, when it must end."""

from __future__ import annotations

import os

from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.guest.child import Child, now, read_some

_DRAIN_ROUNDS = 64
_WRITE = 262144
_KINDS = {"stdout": frames.STDOUT, "stderr": frames.STDERR}


class Operation:
    """State of one operation. The server feeds it; it decides what its client is told."""

    def __init__(self, kind: str, answer: Answer, fields: dict[str, object]) -> None:
        self.kind = kind
        self.answer = answer
        self.execution = ""
        self.fields = fields
        self.header = bytearray()
        self.code = bytearray()
        self.input = bytearray()
        self.input_ended = False
        self.child: Child | None = None
        self.started = 0.0
        self.deadline: float | None = None
        self.reason = ""
        """Why the agent is ending it: "timeout", "stop", or "" while it does not."""
        self.waiting: list[Answer] = []
        """Who asked for its end and hears when it is dead."""
        self.total = {"stdout": 0, "stderr": 0}
        self.oom_before = 0
        self._kept = bytearray()

    def output(self, stream: str, data: bytes) -> None:
        """Pass on what was read from a pipe, up to the cap; of what is beyond only the length is kept."""
        before = self.total[stream]
        self.total[stream] = before + len(data)
        if self.kind == "run":
            room = frames.OUTPUT_CAP - before
            if room > 0:
                self.answer.stream(_KINDS[stream], data[:room])
        elif stream == "stdout":
            self.answer.stream(frames.CONTENT, data)
        elif len(self._kept) < frames.MAX_PAYLOAD:
            self._kept += data

    def drain(self) -> None:
        """Take what is still in the pipes of a program that has ended.

        Not until their end: who passed its descriptor to another run would keep this one open. Nor for ever: that other may be writing.
        """
        child = self.child
        assert child is not None
        for stream in ("stdout", "stderr"):
            descriptor = getattr(child, stream)
            for _ in range(_DRAIN_ROUNDS):
                data = read_some(descriptor) if descriptor >= 0 else None
                if not data:
                    break
                self.output(stream, data)

    def finish(self, oom_now: int) -> None:
        """Tell the client how it ended; the program is dead and the pipes are drained."""
        child = self.child
        assert child is not None
        if self.kind != "run":
            self._finish_file(child)
        elif child.failure:
            self.answer.error("busy", "no process could be started: " + os.strerror(child.failure))
        else:
            self._finish_run(child, oom_now)
        for answer in self.waiting:
            answer.fields(frames.DONE, {"known": True})

    def _finish_run(self, child: Child, oom_now: int) -> None:
        code = signal = 0
        if child.status is None:
            signal = 9
        elif os.WIFSIGNALED(child.status):
            signal = os.WTERMSIG(child.status)
        else:
            code = os.WEXITSTATUS(child.status)
        cut = child.status is None
        result: dict[str, object] = {
            "code": code,
            "signal": signal,
            "timed_out": cut and self.reason == "timeout",
            "stopped": cut and self.reason == "stop",
            "oom": signal == 9 and not self.reason and oom_now > self.oom_before,
            "stdout": self.total["stdout"],
            "stderr": self.total["stderr"],
            "us": int((now() - self.started) * 1000000),
        }
        self.answer.fields(frames.EXITED, result)

    def _finish_file(self, child: Child) -> None:
        try:
            outcome = frames.unpack_dict(bytes(self._kept))
        except frames.Malformed:
            why = self._kept.decode("utf-8", "replace").strip() or "the operation was ended"
            outcome = {"code": "failed", "message": why}
        if "size" in outcome:
            self.answer.fields(frames.DONE, outcome)
        else:
            self.answer.error(str(outcome.get("code")), str(outcome.get("message")))


class Answer:
    """Where the answers of one operation go: a peer, its session, the channel."""

    def __init__(self, peer: Peer, session: bytes, channel: int) -> None:
        self.peer = peer
        self.session = session
        self.channel = channel

    @property
    def key(self) -> tuple[int, bytes, int]:
        return (id(self.peer), self.session, self.channel)

    def stream(self, kind: int, data: bytes) -> None:
        for item in frames.frames(kind, self.session, self.channel, data):
            self.peer.send(item)

    def fields(self, kind: int, value: dict[str, object]) -> None:
        self.peer.send(frames.frame(kind, self.session, self.channel, frames.pack(value)))

    def error(self, code: str, message: str) -> None:
        self.fields(frames.ERROR, {"code": code, "message": message[:2000]})


class Peer:
    """One connection: bytes in, bytes out, never blocking."""

    def __init__(self, read: int, write: int, shared: bool) -> None:
        self.read = read
        self.write = write
        self.shared = shared
        """Several clients write to and hear of this stream; its end is nobody's in particular."""
        self.parser = frames.Parser(resync=shared)
        self.leases: dict[bytes, tuple[float, float]] = {}
        """Session: (seconds, when it lapses)."""
        self.closed = False
        self._out = bytearray()
        os.set_blocking(read, False)
        os.set_blocking(write, False)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written."""
        return len(self._out)

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        idle = not self._out
        self._out += data
        if idle:
            self.flush()

    def flush(self) -> None:
        """Write what the other side takes; whoever went away is found out by reading."""
        while self._out:
            try:
                sent = os.write(self.write, self._out[:_WRITE])
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()
                return
            del self._out[:sent]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._out.clear()
            for descriptor in {self.read, self.write}:
                os.close(descriptor)
