"""The loopback E2B's data plane: envd, the program inside a sandbox that starts commands and moves files."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from tests.support.cloud.common import Fault
from tests.support.cloud.e2b_http import CHUNK, Answer, Connection, Dropped, refusal
from tests.support.cloud.e2b_world import GUEST_HOME, CloudSandbox, Process

MID_STREAM = (Fault.STREAM_CUT, Fault.STREAM_CUT_DEAD, Fault.KILLED)

KILLED = ("unavailable", "the connection to sandbox ended before the stream completed")
"""How a stream ends whose sandbox is killed, as e2b/envd/rpc.py expects it."""

_SOON = 5.0
"""Seconds in which a command that was started says something, if it ever does."""
_EVENTS_BEFORE_CUT = 2
"""Pieces of output that a client hears before a stream is cut: it is in the middle of something then."""

READ = 'if [ -d "$1" ]; then echo folder; elif [ -e "$1" ]; then echo file; cat "$1"; else echo missing; fi'
WRITE = (
    'if ! mkdir -p "$(dirname "$1")" 2>/dev/null; then echo parents; cat >/dev/null;'
    ' elif [ -d "$1" ]; then echo folder; cat >/dev/null; else cat > "$1" && echo file; fi'
)


def user_of(connection: Connection) -> str:
    """As whom a request is to be carried out; "" is the template's own user."""
    _, _, credentials = connection.headers.get("Authorization", "").partition(" ")
    return base64.b64decode(credentials).decode().rstrip(":")


class Stream:
    """One process stream to one client; when the client goes away the process does not notice."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.connected = True

    def send(self, message: dict[str, Any], *, last: bool = False) -> None:
        if self.connected:
            try:
                self._connection.send_envelope(message, last=last)
            except OSError:
                self.connected = False

    def break_off(self, code: str, message: str) -> None:
        """End it with an error, and the connection with it."""
        self.send({"error": {"code": code, "message": message}}, last=True)
        self.connected = False
        self._connection.hang_up()


class Envd:
    """Serves one request for one sandbox."""

    def __init__(
        self,
        connection: Connection,
        sandbox: CloudSandbox,
        kill: Callable[[str], bool],
        take: Callable[..., Fault | None],
    ) -> None:
        self.connection, self.sandbox, self._kill, self._take = connection, sandbox, kill, take

    # --- processes -------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """`process.Process/Start`: a server stream of start, data and end events."""
        request = self.connection.envelope()
        try:
            process = self.sandbox.start(
                request["process"],
                user=user_of(self.connection),
                stdin=request.get("stdin", True),
            )
        except (ProcessLookupError, FileNotFoundError) as error:
            raise refusal(502, "The sandbox was not found") from error
        if self._take("start", (Fault.ANSWER_LOST,)):
            assert process.child.stdout is not None
            # Not before it has taken effect, which shows in what the command says.
            select.select([process.child.stdout], [], [], _SOON)
            threading.Thread(target=self._follow, args=(process, None, None), daemon=True).start()
            raise Dropped
        fault = self._take("start", MID_STREAM)
        self.connection.begin_stream("application/connect+json")
        stream = Stream(self.connection)
        stream.send({"event": {"start": {"pid": process.pid}}})
        self._follow(process, stream, fault)
        if stream.connected:
            self.connection.end_stream()

    def _follow(self, process: Process, stream: Stream | None, fault: Fault | None) -> None:
        """Pass output on until the process and all that hold its pipes are done, as envd does."""
        child = process.child
        limit = int(self.connection.headers.get("Connect-Timeout-Ms") or 0) / 1000
        deadline = time.monotonic() + limit if limit else None
        timed_out = False
        events = 0
        with selectors.DefaultSelector() as selector:
            for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
                assert pipe is not None
                selector.register(pipe.fileno(), selectors.EVENT_READ, name)
            while selector.get_map():
                for key, _ in selector.select(self._patience(deadline if not timed_out else None)):
                    data = os.read(key.fd, 32 * 1024)
                    if not data:
                        selector.unregister(key.fd)
                    elif stream is not None:
                        stream.send({"event": {"data": {key.data: base64.b64encode(data).decode()}}})
                        events += 1
                        if fault is not None and events == _EVENTS_BEFORE_CUT:
                            self._cut(stream, fault)
                            stream = None
                if deadline is not None and not timed_out and time.monotonic() >= deadline:
                    # envd kills the command itself, not what that started.
                    timed_out = True
                    self.sandbox.signal(process, signal.SIGKILL)
                if stream is not None and self.sandbox.paused:
                    stream.break_off("canceled", "context canceled")
                    stream, deadline = None, None
                if stream is not None and not stream.connected:
                    self.connection.reset()
                    stream, deadline = None, None
        status = child.wait()
        self.sandbox.ended(process)
        if stream is None:
            return
        if timed_out:
            error = {"code": "deadline_exceeded", "message": "context deadline exceeded"}
            stream.send({"error": error}, last=True)
        elif self.sandbox.dead:
            stream.break_off(*KILLED)
        else:
            code = status if status >= 0 else -1
            end = {"exitCode": code, "exited": status >= 0, "status": f"exit status {code}"}
            stream.send({"event": {"end": end}})
            stream.send({}, last=True)

    @staticmethod
    def _patience(deadline: float | None) -> float:
        """Seconds to the deadline, but soon enough to notice that the sandbox was paused."""
        return 0.05 if deadline is None else min(0.05, max(0.0, deadline - time.monotonic()))

    def _cut(self, stream: Stream, fault: Fault) -> None:
        """Break the connection under a running command; the command goes on if its sandbox does."""
        if fault is Fault.KILLED:
            self._kill(self.sandbox.id)
            stream.break_off(*KILLED)
        else:
            self.sandbox.unreachable = fault is Fault.STREAM_CUT_DEAD
            self.connection.reset()

    def process(self, body: dict[str, Any]) -> Process:
        process = self.sandbox.processes.get(int(body["process"]["pid"]))
        if process is None:
            raise Answer(404, {"code": "not_found", "message": "process not found"})
        return process

    def list(self) -> None:
        self.connection.json()
        raise Answer(
            200, {"processes": [{"pid": p.pid, "config": p.config} for p in list(self.sandbox.processes.values())]}
        )

    def send_signal(self) -> None:
        body = self.connection.json()
        number = {"SIGNAL_SIGKILL": signal.SIGKILL, "SIGNAL_SIGTERM": signal.SIGTERM}[body["signal"]]
        self.sandbox.signal(self.process(body), number)
        raise Answer(200, {})

    def send_input(self) -> None:
        body = self.connection.json()
        pipe = self.process(body).child.stdin
        assert pipe is not None
        pipe.write(base64.b64decode(body["input"]["stdin"]))
        pipe.flush()
        raise Answer(200, {})

    def close_stdin(self) -> None:
        pipe = self.process(self.connection.json()).child.stdin
        assert pipe is not None
        pipe.close()
        raise Answer(200, {})

    # --- files -----------------------------------------------------------------------------------------------------
    def _shell(self, script: str, path: str, *, stdin: bool) -> subprocess.Popen[bytes]:
        """File work is done from inside, so that links lead where they lead in there."""
        if not path.startswith("/"):
            path = f"{GUEST_HOME}/{path}"
        return self.sandbox.machine.start(["sh", "-c", script, "sh", path], stdin=stdin)

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()
        self.sandbox.machine.forget(child)

    def read(self) -> None:
        path = self.connection.query["path"]
        child = self._shell(READ, path, stdin=False)
        try:
            assert child.stdout is not None
            match child.stdout.readline():
                case b"folder\n":
                    raise refusal(400, f"path '{path}' is a directory")
                case b"file\n":
                    pass
                case _:
                    raise refusal(404, f"path '{path}' does not exist")
            self.connection.begin_stream("application/octet-stream")
            while data := child.stdout.read1(CHUNK):  # type: ignore[attr-defined]
                self.connection.send(data)
            self.connection.end_stream()
        finally:
            self._finish(child)

    def write(self) -> None:
        if self.connection.headers.get_content_type() == "multipart/form-data":
            head = f"Content-Type: {self.connection.headers['Content-Type']}\r\n\r\n".encode()
            form = BytesParser(policy=HTTP).parsebytes(head + self.connection.body())
            parts = [(p.get_filename() or "", p.get_payload(decode=True) or b"") for p in form.iter_parts()]
            if "path" in self.connection.query:
                parts = [(self.connection.query["path"], parts[0][1])]
            raise Answer(200, [self._write_one(name, [data]) for name, data in parts])
        raise Answer(200, [self._write_one(self.connection.query["path"], self.connection.chunks())])

    def _write_one(self, path: str, chunks: Any) -> dict[str, str]:
        child = self._shell(WRITE, path, stdin=True)
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            for data in chunks:
                child.stdin.write(data)
            child.stdin.close()
            match child.stdout.readline():
                case b"folder\n":
                    raise refusal(400, f"path is a directory: {path}")
                case b"file\n":
                    return {"name": path.rpartition("/")[2], "type": "file", "path": path}
                case b"parents\n":
                    raise refusal(500, f"error ensuring directories: mkdir {path}: not a directory")
                case _:
                    raise refusal(500, f"error opening file: {path}")
        finally:
            self._finish(child)
