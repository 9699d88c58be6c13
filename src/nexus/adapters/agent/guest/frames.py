"""The agent's wire protocol: frames, the field codec, and what each message means. Shared by both ends.

Frame: a 12-byte header (big-endian: magic ``NX`` + version byte, kind u8, channel u32, length u32) and a payload of
at most 64 KiB. A **channel** is one operation, numbered by the client, so that several operations share a connection.

Payloads are *fields* (`pack`/`unpack`) or, for CODE, DATA, STDOUT, STDERR, CONTENT, plain bytes.

Client to agent, and the answers on the same channel. Any request may be answered by ERROR {code, message} instead.

HELLO
    {}. WELCOME {version, boot, containment, python, ttl, ready, notes}.
SETUP
    {env, ttl?: ms}; may be cut over several frames, then END. DONE {known}: whether it was set up before.
RUN
    {id, timeout: ms, language, argv?, mode, session?, env, ttl?: ms}; may be cut over several frames. Followed by CODE
    frames with the source, DATA frames with standard input, and END, at which it starts: ACCEPTED, STDOUT and STDERR,
    EXITED. Runs of one `session` go on with each other's variables, one at a time; mode `fresh` begins it anew.
CANCEL
    {id}, on a channel of its own. DONE {known}, once everything of that run is dead.
STOP
    Ends the operation on this channel: that operation's own EXITED, DONE or ERROR.
PING, EXTEND
    {}, or {ttl: ms from now}, which never shortens. DONE {ttl}.
READ
    {path, limit}. CONTENT frames, then DONE {size}.
WRITE
    {path, limit}. ACCEPTED; DATA frames and END follow; DONE {size}.
QUIT
    {}: ends the sandbox, and with it the stream.

EXITED is {code, signal, timed_out, oom, stopped, session_started, stdout, stderr, us}: `code` is the program's own
(0-255) unless `signal` is not 0; `stdout` and `stderr` count all bytes written, those beyond the cap included; at most
`OUTPUT_CAP` bytes per stream are sent.

Promises. An agent that awaits its SETUP does nothing before it (ERROR `unready`), and heeds only the first one.
Nothing runs before END. An execution id is claimed at END and runs at most once: a second END answers ERROR `seen`,
as does an id that was cancelled before it came. ACCEPTED comes before any output. A connection that closes takes its
runs with it. When EXITED is sent, every process of the run is dead. All times are durations, so clocks need not
agree.

ERROR codes: `seen`, `busy` (no room for another run now; nothing happened), `unready`, `invalid`, `unsupported`,
`not_found`, `too_large`, `refused` (a device, a FIFO, a folder, no permission), `failed`.
"""

from __future__ import annotations

import struct

MAGIC = b"NX\x01"
HEADER = struct.Struct(">3sBII")
MAX_PAYLOAD = 65536
OUTPUT_CAP = 1024 * 1024
MAX_CODE = 16 * 1024 * 1024
MAX_STDIN = 16 * 1024 * 1024

HELLO, RUN, CODE, DATA, END, CANCEL, STOP, PING, EXTEND, READ, WRITE, QUIT, SETUP = range(1, 14)
WELCOME, ACCEPTED, STDOUT, STDERR, EXITED, DONE, CONTENT, ERROR = range(64, 72)


class Malformed(Exception):
    """The peer sent what the protocol does not allow."""


def frame(kind: int, channel: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    return HEADER.pack(MAGIC, kind, channel, len(payload)) + payload


def frames(kind: int, channel: int, data: bytes) -> list[bytes]:
    """As many frames as `data` needs; none for none."""
    return [frame(kind, channel, data[i : i + MAX_PAYLOAD]) for i in range(0, len(data), MAX_PAYLOAD)]


class Parser:
    """Turns received bytes into frames; holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are now complete, as (kind, channel, payload). Raises Malformed for what is no frame."""
        buffer = self._buffer
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= HEADER.size:
            magic, kind, channel, length = HEADER.unpack_from(buffer, start)
            if magic != MAGIC or length > MAX_PAYLOAD:
                buffer.clear()  # nothing that follows can be told from it
                raise Malformed("not a frame")
            end = start + HEADER.size + length
            if len(buffer) < end:
                break
            found.append((kind, channel, bytes(buffer[start + HEADER.size : end])))
            start = end
        del buffer[:start]
        return found


# Fields: a one-letter type, then the value. Small on purpose: `json` costs 10 ms to import in a new interpreter.
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">q")
_DEPTH = 4


def pack(value: object) -> bytes:
    """Bytes for None, bool, int (64 bits), str, bytes, lists and dicts with str keys."""
    out: list[bytes] = []
    _pack(value, out)
    return b"".join(out)


def _pack(value: object, out: list[bytes]) -> None:
    if value is None:
        out.append(b"n")
    elif value is True or value is False:
        out.append(b"t" if value else b"f")
    elif isinstance(value, int):
        out.append(b"i" + _NUMBER.pack(value))
    elif isinstance(value, (str, bytes)):
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        out.append((b"s" if isinstance(value, str) else b"b") + _LENGTH.pack(len(raw)) + raw)
    elif isinstance(value, (list, tuple)):
        out.append(b"l" + _LENGTH.pack(len(value)))
        for item in value:
            _pack(item, out)
    elif isinstance(value, dict):
        out.append(b"d" + _LENGTH.pack(len(value)))
        for key, item in value.items():
            _pack(str(key), out)
            _pack(item, out)
    else:
        raise TypeError("cannot pack " + type(value).__name__)


def unpack(data: bytes) -> object:
    """The packed value; `Malformed` for anything else. Never allocates more than the input accounts for."""
    try:
        value, at = _unpack(data, 0, _DEPTH)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    if at != len(data):
        raise Malformed("trailing bytes")
    return value


def unpack_dict(data: bytes) -> dict[str, object]:
    """As `unpack`, for a dict with str keys."""
    value = unpack(data)
    if not isinstance(value, dict):
        raise Malformed("not a dict")
    return value


def _unpack(data: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = data[at : at + 1]
    at += 1
    if kind == b"n":
        return None, at
    if kind in (b"t", b"f"):
        return kind == b"t", at
    if kind == b"i":
        return _NUMBER.unpack_from(data, at)[0], at + 8
    if kind not in (b"s", b"b", b"l", b"d"):
        raise Malformed("unknown type")
    (count,) = _LENGTH.unpack_from(data, at)
    at += 4
    if kind in (b"s", b"b"):
        raw = data[at : at + count]
        if len(raw) != count:
            raise Malformed("cut short")
        return (raw.decode("utf-8", "surrogateescape") if kind == b"s" else bytes(raw)), at + count
    if not depth or count > len(data) - at:
        raise Malformed("too deep or too long")
    if kind == b"l":
        items = []
        for _ in range(count):
            item, at = _unpack(data, at, depth - 1)
            items.append(item)
        return items, at
    fields = {}
    for _ in range(count):
        key, at = _unpack(data, at, 0)
        if not isinstance(key, str):
            raise Malformed("key is not text")
        fields[key], at = _unpack(data, at, depth - 1)
    return fields, at
