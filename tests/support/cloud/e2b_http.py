"""HTTP for the loopback E2B: requests, answers, streams, and connections that break on demand."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

CHUNK = 64 * 1024


class Dropped(Exception):
    """End this request by resetting its connection."""


class Answer(Exception):
    """Answer this status and JSON body."""

    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, headers or {}


def refusal(status: int, message: str, code: str = "") -> Answer:
    """`code` is what E2B's models call `error_code`."""
    return Answer(status, {"code": status, "message": message, **({"error_code": code} if code else {})})


class Connection(BaseHTTPRequestHandler):
    """One keep-alive connection. A subclass has `route`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120

    def route(self) -> None:
        raise Answer(404)

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.location = url.path
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self._streaming = False
        self._body_read = False
        try:
            try:
                self.route()
            except Answer as answer:
                self.drain()
                self.answer(answer)
        except Dropped:
            self.reset()
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_PUT = handle_any  # noqa: N815 - the names that http.server looks up

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read the cloud's own records, not a log."""

    # --- requests --------------------------------------------------------------------------------------------------
    def chunks(self) -> Iterator[bytes]:
        """The request's body, of known length or chunked."""
        self._body_read = True
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self._line().split(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            self._line()
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _line(self) -> bytes:
        line = self.rfile.readline(1024)
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the client went away")
        return line

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.rfile.read(min(size, CHUNK))
            if not data:
                raise ConnectionResetError("the client went away")
            size -= len(data)
            yield data

    def drain(self) -> None:
        if not self._body_read:
            for _ in self.chunks():
                pass

    def body(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        return json.loads(self.body() or b"{}")

    # --- answers ---------------------------------------------------------------------------------------------------
    def answer(self, answer: Answer) -> None:
        data = b"" if answer.body is None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if data:
            self.send_header("Content-Type", "application/json")
        if answer.status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    # --- Connect's envelopes ---------------------------------------------------------------------------------------
    def envelope(self) -> Any:
        """The one message of a Connect request: flag byte, length, JSON."""
        data = self.body()
        return json.loads(data[5:])

    def send_envelope(self, message: Any, *, last: bool = False) -> None:
        data = json.dumps(message).encode()
        self.send(struct.pack(">BI", 2 if last else 0, len(data)) + data)

    def hang_up(self) -> None:
        """The answer ends here, and so does the connection, once all of it was sent."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.end_stream()
            self.connection.shutdown(socket.SHUT_WR)

    # --- breaking --------------------------------------------------------------------------------------------------
    def reset(self) -> None:
        """TCP RST: what has not been read by the client is lost with it. From any thread."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)  # wakes a thread that waits for the next request
            # Closed by descriptor: the reader and the writer on this socket would keep it open.
            os.close(self.connection.detach())
