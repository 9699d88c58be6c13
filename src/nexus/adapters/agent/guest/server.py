"""The agent's event loop: connections, operations, time-outs and the sandbox's own deadline, in one thread of PID 1."""

from __future__ import annotations

import _socket
import os
import select
import sys

from nexus.adapters.agent.guest import frames, languages
from nexus.adapters.agent.guest.child import Child, now
from nexus.adapters.agent.guest.confine import Rules
from nexus.adapters.agent.guest.nursery import Nursery, Spec
from nexus.adapters.agent.guest.operation import Operation
from nexus.adapters.agent.guest.peers import Answer, Peer

VERSION = 1
_MAX_OPERATIONS = 64
_MAX_PEERS = 128
_MAX_SEEN = 200_000
_MAX_HEADER = 1024 * 1024
_BACKLOG = 4 * 1024 * 1024
"""Bytes waiting for a client that does not read, above which its programs' output is left in their pipes."""
_INPUT = 1024 * 1024
"""Bytes of a file waiting to be written, above which no more are read from its client."""
_EXPIRY_GRACE = 300
"""An expired sandbox lingers this many milliseconds: an extension that came while it was frozen is read before that."""
_READ = 262144


class Server:
    """Serves the clients that `listener` accepts."""

    def __init__(
        self,
        config: dict[str, object],
        rules: Rules,
        control: _socket.socket,
        zygote_pid: int,
        listener: _socket.socket,
    ) -> None:
        self._nursery = Nursery(control, zygote_pid, rules, str(config["code_dir"]))
        self._containment = "pid namespaces" if rules.pid_namespaces else "sweep"
        self._control = control.fileno()
        self._listener = listener
        env = config.get("env")
        self._env: dict[str, str] = {str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {}
        self._notes = config.get("notes") or []
        self._ready = not config.get("await_setup")
        """Whether the environment of runs is known."""
        ttl = config.get("ttl")
        self._deadline = now() + ttl / 1000 if isinstance(ttl, int) else None
        self._expiry_grace = _number(config, "expiry_grace", _EXPIRY_GRACE) / 1000
        self._expired_since: float | None = None
        self._boot = os.urandom(8).hex()
        oom = config.get("oom")
        self._oom = [int(x) for x in oom if isinstance(x, int)] if isinstance(oom, list) else []
        self._operations: dict[tuple[int, int], Operation] = {}
        self._seen: dict[str, None] = {}
        self._peers: dict[int, Peer] = {}
        self._poller = select.poll()
        self._watched: dict[int, int] = {}

    # --- the loop ---

    def serve(self) -> None:
        """Until the sandbox's deadline has passed, its zygote is lost, or a client ends it."""
        self._nursery.refill()
        while self._step():
            pass

    def _step(self) -> bool:
        self._watch()
        for descriptor, events in self._poller.poll(self._patience()):
            if descriptor == self._control:
                if not self._zygote_speaks():
                    return False
            elif descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._nursery.pipes:
                self._pipe_ready(descriptor)
            elif descriptor in self._peers:
                self._peer_ready(self._peers[descriptor], events)
        return self._clock()

    def _watch(self) -> None:
        """Tell the poller what is of interest now; only differences reach the kernel."""
        wanted = {self._control: select.POLLIN}
        if len(self._peers) < _MAX_PEERS:
            wanted[self._listener.fileno()] = select.POLLIN
        full = [x.answer.peer for x in self._operations.values() if x.kind == "write" and len(x.input) > _INPUT]
        for peer in self._peers.values():
            wanted[peer.descriptor] = (0 if peer in full else select.POLLIN) | (select.POLLOUT if peer.backlog else 0)
        for descriptor, (child, name) in self._nursery.pipes.items():
            operation = self._nursery.operation_of(child)
            if name == "stdin":
                if operation is not None and (operation.input or operation.input_ended):
                    wanted[descriptor] = select.POLLOUT
            elif name == "report" or operation is None or operation.answer.peer.backlog < _BACKLOG:
                wanted[descriptor] = select.POLLIN
        for descriptor in [x for x in self._watched if x not in wanted]:
            self._forget(descriptor)
        for descriptor, events in wanted.items():
            if self._watched.get(descriptor) != events:
                self._poller.register(descriptor, events)
                self._watched[descriptor] = events

    def _forget(self, descriptor: int) -> None:
        """To be called before a watched descriptor is closed: its number may be used again at once."""
        if self._watched.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)

    def _patience(self) -> float | None:
        moments = [op.deadline for op in self._operations.values() if op.deadline is not None]
        if self._deadline is not None:
            moments.append(self._deadline + (self._expiry_grace if self._expired_since is not None else 0))
        if not moments:
            return None
        return max(0.0, min(moments) - now()) * 1000 + 1

    def _clock(self) -> bool:
        at = now()
        for operation in list(self._operations.values()):
            if operation.deadline is not None and operation.deadline <= at:
                operation.deadline = None
                self._stop(operation, "timeout")
        if self._deadline is None or at < self._deadline:
            self._expired_since = None
            return True
        if self._expired_since is None:
            self._expired_since = at
        return at - self._expired_since < self._expiry_grace

    # --- connections ---

    def _accept(self) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        self._peers[descriptor] = Peer(descriptor)

    def _peer_ready(self, peer: Peer, events: int) -> None:
        if events & select.POLLOUT:
            peer.flush()
        if not events & ~select.POLLOUT:
            return
        try:
            data = os.read(peer.descriptor, _READ)
            for kind, channel, payload in peer.parser.feed(data):
                self._frame(Answer(peer, channel), kind, payload)
        except BlockingIOError:
            return
        except (OSError, frames.Malformed):
            data = b""
        if not data:
            self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        """A client is gone: its runs end, what it had not finished asking never happened."""
        for key, operation in list(self._operations.items()):
            if operation.answer.peer is peer:
                del self._operations[key]
                # Under a key that no client has, so that the number of the descriptor can be used again.
                if operation.child is not None:
                    self._operations[(-operation.child.slot, 0)] = operation
                    self._stop(operation, "stop")
        self._forget(peer.descriptor)
        del self._peers[peer.descriptor]
        peer.close()

    # --- requests ---

    def _frame(self, answer: Answer, kind: int, payload: bytes) -> None:
        try:
            self._request(answer, kind, payload)
        except frames.Malformed as error:
            self._operations.pop(answer.key, None)
            answer.error("invalid", str(error))

    def _request(self, answer: Answer, kind: int, payload: bytes) -> None:
        operation = self._operations.get(answer.key)
        if kind in (frames.RUN, frames.SETUP):
            if operation is None:
                operation = self._open("run" if kind == frames.RUN else "setup", answer, {})
            if operation is not None and operation.child is None:
                operation.collect(operation.header, payload, _MAX_HEADER)
        elif kind in (frames.CODE, frames.DATA, frames.END):
            if operation is not None and not operation.input_ended:
                self._input(operation, kind, payload)
        elif kind == frames.STOP:
            if operation is not None and operation.child is not None:
                self._stop(operation, "stop")
            else:
                self._operations.pop(answer.key, None)
                answer.error("invalid", "nothing to stop")
        else:
            self._question(answer, kind, frames.unpack_dict(payload))

    def _input(self, operation: Operation, kind: int, payload: bytes) -> None:
        if kind == frames.CODE:
            operation.collect(operation.code, payload, frames.MAX_CODE)
        elif kind == frames.DATA:
            # A file's flow is held up before it comes to this; see _watch.
            operation.collect(operation.input, payload, frames.MAX_STDIN)
        else:
            operation.input_ended = True
            if operation.kind == "run":
                self._begin_run(operation)
            elif operation.kind == "setup":
                self._set_up(operation)

    def _question(self, answer: Answer, kind: int, fields: dict[str, object]) -> None:
        if kind == frames.HELLO:
            python = "{}.{}.{}".format(*sys.version_info[:3])
            welcome = {"version": VERSION, "boot": self._boot, "containment": self._containment, "python": python}
            answer.fields(frames.WELCOME, {**welcome, "ttl": self._ttl(), "ready": self._ready, "notes": self._notes})
        elif kind == frames.CANCEL:
            self._cancel(answer, str(fields.get("id", "")))
        elif kind == frames.PING:
            answer.fields(frames.DONE, {"ttl": self._ttl()})
        elif kind == frames.EXTEND:
            self._extend(_number(fields, "ttl", 0))
            answer.fields(frames.DONE, {"ttl": self._ttl()})
        elif kind in (frames.READ, frames.WRITE):
            operation = self._open("read" if kind == frames.READ else "write", answer, fields)
            if operation is not None:
                self._begin_file(operation)
        elif kind == frames.QUIT:
            os._exit(0)
        else:
            raise frames.Malformed("unknown kind of frame")

    def _set_up(self, operation: Operation) -> None:
        """Take the environment and the deadline, which the start did not tell; the first word counts."""
        del self._operations[operation.answer.key]
        fields = frames.unpack_dict(bytes(operation.header))
        env = fields.get("env")
        known, self._ready = self._ready, True
        if not known:
            if isinstance(env, dict):
                self._env.update({str(k): str(v) for k, v in env.items()})
            if isinstance(fields.get("ttl"), int):
                self._deadline = now() + _number(fields, "ttl", 0) / 1000
        operation.answer.fields(frames.DONE, {"known": known})

    def _open(self, kind: str, answer: Answer, fields: dict[str, object]) -> Operation | None:
        if answer.key in self._operations:
            raise frames.Malformed("the channel is in use")
        if not self._ready and kind != "setup":
            answer.error("unready", "the sandbox was not set up since it started")
            return None
        if len(self._operations) >= _MAX_OPERATIONS:
            answer.error("busy", f"{_MAX_OPERATIONS} operations are running already")
            return None
        operation = self._operations[answer.key] = Operation(kind, answer, fields)
        return operation

    def _ttl(self) -> int | None:
        return None if self._deadline is None else int((self._deadline - now()) * 1000)

    def _extend(self, ttl: int) -> None:
        if self._deadline is not None:
            self._deadline = max(self._deadline, now() + ttl / 1000)

    # --- operations ---

    def _begin_run(self, operation: Operation) -> None:
        fields = operation.fields = frames.unpack_dict(bytes(operation.header))
        execution, timeout, argv = fields.get("id"), _number(fields, "timeout", 0), fields.get("argv")
        language = None if isinstance(argv, list) else str(fields.get("language"))
        if not isinstance(execution, str) or not execution or timeout <= 0 or argv == []:
            raise frames.Malformed("a run needs an id, a time-out, and code or a command")
        if language is not None and language not in languages.SUFFIXES:
            self._abandon(operation, "unsupported", "unknown language")
        elif execution in self._seen:
            self._abandon(operation, "seen", "this execution id was used before")
        else:
            self._claim(execution)
            operation.execution = execution
            self._extend(_number(fields, "ttl", 0))
            more = fields.get("env")
            env = {**self._env, **({str(k): str(v) for k, v in more.items()} if isinstance(more, dict) else {})}
            command = [str(x) for x in argv] if isinstance(argv, list) else []
            spec: Spec = {"kind": "run", "env": env, "path": "", "limit": 0, "argv": command}
            if self._launch(operation, spec, language, fields.get("mode") == "fresh"):
                operation.deadline = operation.started + timeout / 1000
                operation.answer.fields(frames.ACCEPTED, {})
            else:
                del self._seen[execution]  # nothing has happened: it may be tried again

    def _begin_file(self, operation: Operation) -> None:
        path, limit = str(operation.fields.get("path", "")), _number(operation.fields, "limit", 0)
        operation.input_ended = operation.kind == "read"
        spec: Spec = {"kind": operation.kind, "env": {}, "path": path, "limit": limit, "argv": []}
        if self._launch(operation, spec, None, False) and operation.kind == "write":
            operation.answer.fields(frames.ACCEPTED, {})

    def _launch(self, operation: Operation, spec: Spec, language: str | None, fresh: bool) -> bool:
        operation.oom_before = self._oom_kills()
        operation.started = now()
        try:
            if language is None:
                self._nursery.start(operation, spec)
            elif not self._nursery.start_source(operation, spec, language, fresh):
                self._abandon(operation, "unsupported", language + " is not installed in this sandbox")
                return False
        except OSError as error:
            self._abandon(operation, "busy", "cannot start: " + (error.strerror or str(error)))
            return False
        return True

    def _abandon(self, operation: Operation, code: str, message: str) -> None:
        self._operations.pop(operation.answer.key, None)
        operation.answer.error(code, message)

    def _claim(self, execution: str) -> None:
        self._seen[execution] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def _cancel(self, answer: Answer, execution: str) -> None:
        for operation in self._operations.values():
            if operation.execution == execution:
                operation.waiting.append(answer)
                self._stop(operation, "stop")
                return
        known = execution in self._seen
        self._claim(execution)  # so that it does not run when it comes late
        answer.fields(frames.DONE, {"known": known})

    def _stop(self, operation: Operation, reason: str) -> None:
        if not operation.reason and operation.child is not None and not operation.child.ended:
            operation.reason = reason
            self._nursery.kill(operation.child)

    # --- children ---

    def _zygote_speaks(self) -> bool:
        there, child = self._nursery.hear()
        if child is not None:
            self._settle(child)
        return there

    def _pipe_ready(self, descriptor: int) -> None:
        child, name = self._nursery.pipes[descriptor]
        operation = self._nursery.operation_of(child)
        if name == "report":
            child.read_report()
            if child.status is not None:
                self._settle(child)
            else:
                self._close_pipe(child, name)  # the init was killed; the zygote will say so
        elif name == "stdin":
            if operation is not None:
                self._feed(child, operation)
        else:
            data = child.read(name)
            if data == b"":
                self._close_pipe(child, name)
            elif data and operation is not None:
                operation.output(name, data)

    def _feed(self, child: Child, operation: Operation) -> None:
        try:
            if operation.input:
                sent = os.write(child.stdin, operation.input[:_READ])
                del operation.input[:sent]
        except BlockingIOError:
            return
        except OSError:
            operation.input.clear()
            operation.input_ended = True
        if operation.input_ended and not operation.input:
            self._close_pipe(child, "stdin")

    def _close_pipe(self, child: Child, name: str) -> None:
        descriptor = getattr(child, name)
        self._forget(descriptor)
        self._nursery.pipes.pop(descriptor, None)
        os.close(descriptor)
        setattr(child, name, -1)

    def _settle(self, child: Child) -> None:
        """Nothing of the child is alive any more: answer once, and clear up when the zygote has let go as well."""
        operation = self._nursery.operation_of(child)
        key = next((k for k, x in self._operations.items() if x is operation), None)
        if operation is not None and key is not None:
            for name in ("stdout", "stderr"):
                for data in child.left_in(name):
                    operation.output(name, data)
            operation.finish(self._oom_kills())
            del self._operations[key]
            if child.failure:
                self._seen.pop(operation.execution, None)  # it never started
        for descriptor in self._nursery.bury(child):
            self._forget(descriptor)
        child.close()
        if operation is not None:  # not when a waiting child could not be forked: the next would fail just as well
            self._nursery.refill()

    def _oom_kills(self) -> int:
        """How many processes of this sandbox the kernel has killed for memory."""
        total = 0
        for descriptor in self._oom:
            for line in os.pread(descriptor, 4096, 0).splitlines():
                if line.startswith(b"oom_kill "):
                    total += int(line.split()[1])
        return total


def _number(fields: dict[str, object], name: str, default: int) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else default
