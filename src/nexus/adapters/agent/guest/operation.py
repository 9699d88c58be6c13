"""One operation of a client: a run, or a file being read or written. What it was asked, and what it sends back."""

from __future__ import annotations

import os

from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.guest.child import Child, now
from nexus.adapters.agent.guest.peers import Answer

_KINDS = {"stdout": frames.STDOUT, "stderr": frames.STDERR}
_KILLED = 9


class Operation:
    """State of one operation. The server feeds it; it decides what its client is told."""

    def __init__(self, kind: str, answer: Answer, fields: dict[str, object]) -> None:
        self.kind = kind
        """"run", "read", "write", or "setup"."""
        self.answer = answer
        self.fields = fields
        self.execution = ""
        self.header = bytearray()
        self.code = bytearray()
        self.input = bytearray()
        self.input_ended = False
        self.spec: dict[str, object] = {}
        """What a process is to become for it."""
        self.language: str | None = None
        self.child: Child | None = None
        self.started = 0.0
        self.deadline: float | None = None
        self.reason = ""
        """Why the agent is ending it: "timeout", "stop", or "" while it does not."""
        self.waiting: list[Answer] = []
        """Who asked for its end and hears when it is dead."""
        self.oom_before = 0
        self.attempts = 0
        """How often a process for it was asked for."""
        self.begins_session = False
        self.fed = False
        """Some of its input was handed on."""
        self._total = {"stdout": 0, "stderr": 0}
        self._outcome = bytearray()

    def collect(self, into: bytearray, data: bytes, limit: int) -> None:
        """Take a part of what the client sends. Raises Malformed beyond `limit` bytes."""
        if len(into) + len(data) > limit:
            raise frames.Malformed(f"more than {limit} bytes")
        into += data

    def output(self, stream: str, data: bytes) -> None:
        """Pass on what was read from a pipe, up to the cap; of what is beyond only the length is kept."""
        before = self._total[stream]
        self._total[stream] = before + len(data)
        if self.kind == "run":
            room = frames.OUTPUT_CAP - before
            if room > 0:
                self.answer.stream(_KINDS[stream], data[:room])
        elif stream == "stdout":
            self.answer.stream(frames.CONTENT, data)
        elif len(self._outcome) < frames.MAX_PAYLOAD:
            self._outcome += data

    def finish(self, oom_now: int) -> None:
        """Tell the client how it ended; its processes are dead and its pipes are drained."""
        assert self.child is not None
        if self.kind != "run":
            self._finish_file()
        elif self.child.failure:
            self.answer.error("busy", "no process could be started: " + os.strerror(self.child.failure))
        else:
            self._finish_run(self.child.status, oom_now)
        for answer in self.waiting:
            answer.fields(frames.DONE, {"known": True})

    def _finish_run(self, status: int | None, oom_now: int) -> None:
        code = signal = 0
        if status is None:
            signal = _KILLED
        elif os.WIFSIGNALED(status):
            signal = os.WTERMSIG(status)
        else:
            code = os.WEXITSTATUS(status)
        result: dict[str, object] = {
            "code": code,
            "signal": signal,
            "timed_out": status is None and self.reason == "timeout",
            "stopped": status is None and self.reason == "stop",
            "session_started": self.begins_session,
            "oom": signal == _KILLED and not self.reason and oom_now > self.oom_before,
            "stdout": self._total["stdout"],
            "stderr": self._total["stderr"],
            "us": int((now() - self.started) * 1_000_000),
        }
        self.answer.fields(frames.EXITED, result)

    def _finish_file(self) -> None:
        try:
            outcome = frames.unpack_dict(bytes(self._outcome))
        except frames.Malformed:
            why = self._outcome.decode("utf-8", "replace").strip() or "the operation was ended"
            outcome = {"code": "failed", "message": why}
        if "size" in outcome:
            self.answer.fields(frames.DONE, outcome)
        else:
            self.answer.error(str(outcome.get("code")), str(outcome.get("message")))
