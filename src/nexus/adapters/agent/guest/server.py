"""The agent's event loop: connections, operations, time-outs and the sandbox's own deadline, in one thread of PID 1."""

from __future__ import annotations

import _socket
import os
import select
import sys

from nexus.adapters.agent.guest import frames, languages, sweep, zygote
from nexus.adapters.agent.guest.child import Child, now, read_some
from nexus.adapters.agent.guest.confine import Rules
from nexus.adapters.agent.guest.run import Answer, Operation, Peer

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
"""An expired sandbox lingers this many milliseconds, so that an extension that arrived while it was frozen is read before the deadline is."""
_READ = 262144


class Server:
    """`listener` accepts clients; `shared` is (read, write) of a stream that all clients use, or None."""

    def __init__(
        self,
        config: dict[str, object],
        rules: Rules,
        control: _socket.socket,
        zygote_pid: int,
        listener: _socket.socket | None,
        shared: tuple[int, int] | None,
    ) -> None:
        self._rules = rules
        self._control = control
        self._zygote_pid = zygote_pid
        self._listener = listener
        self._code_dir = str(config["code_dir"])
        env = config.get("env")
        self._env: dict[str, str] = {str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {}
        self._ready = not config.get("await_setup")
        """Whether the environment of runs is known."""
        ttl = config.get("ttl")
        self._deadline = now() + ttl / 1000 if isinstance(ttl, int) else None
        self._expiry_grace = _number(config, "expiry_grace", _EXPIRY_GRACE) / 1000
        self._expired_since: float | None = None
        self._boot = os.urandom(8).hex()
        oom = config.get("oom")
        self._oom = [int(x) for x in oom if isinstance(x, int)] if isinstance(oom, list) else []
        self._operations: dict[tuple[int, bytes, int], Operation] = {}
        self._children: dict[int, tuple[Child, Operation | None]] = {}
        self._seen: dict[str, None] = {}
        self._slots = 0
        self._spare: Child | None = None
        self._peers: dict[int, Peer] = {}
        self._poller = select.poll()
        self._watched: dict[int, int] = {}
        self._pipes: dict[int, tuple[Child, str]] = {}
        if shared:
            self._add_peer(Peer(shared[0], shared[1], shared=True))

    # --- the loop ---

    def serve(self) -> None:
        """Until the sandbox's deadline has passed, its zygote is lost, or a client ends it."""
        while self._step():
            pass

    def _step(self) -> bool:
        self._watch()
        for descriptor, events in self._poller.poll(self._patience()):
            if descriptor == self._control.fileno():
                if not self._zygote_speaks():
                    return False
            elif self._listener is not None and descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._pipes:
                self._pipe_ready(descriptor)
            else:
                self._peer_ready(descriptor, events)
        return self._clock()

    def _watch(self) -> None:
        """Tell the poller what is of interest now; only differences reach the kernel."""
        wanted = {self._control.fileno(): select.POLLIN}
        if self._listener is not None and len(self._peers) < _MAX_PEERS:
            wanted[self._listener.fileno()] = select.POLLIN
        full = {
            op.answer.peer.read for op in self._operations.values() if op.kind == "write" and len(op.input) > _INPUT
        }
        for peer in self._peers.values():
            if peer.read not in full:
                wanted[peer.read] = wanted.get(peer.read, 0) | select.POLLIN
            if peer.backlog:
                wanted[peer.write] = wanted.get(peer.write, 0) | select.POLLOUT
        for descriptor, (child, name) in self._pipes.items():
            operation = self._children[child.slot][1]
            if name == "stdin":
                if operation is not None and (operation.input or operation.input_ended):
                    wanted[descriptor] = select.POLLOUT
            elif name == "report" or operation is None or operation.answer.peer.backlog < _BACKLOG:
                wanted[descriptor] = select.POLLIN
        for descriptor in [x for x in self._watched if x not in wanted]:
            self._poller.unregister(descriptor)
            del self._watched[descriptor]
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
        moments += [lapse for peer in self._peers.values() for seconds, lapse in peer.leases.values()]
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
        for peer in self._peers.values():
            for session, (_, lapse) in list(peer.leases.items()):
                if lapse <= at:
                    del peer.leases[session]
                    self._drop(peer, session)
        if self._deadline is None or at < self._deadline:
            self._expired_since = None
            return True
        if self._expired_since is None:
            self._expired_since = at
        return at - self._expired_since < self._expiry_grace

    # --- connections ---

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        self._add_peer(Peer(descriptor, descriptor, shared=False))

    def _add_peer(self, peer: Peer) -> None:
        self._peers[peer.read] = peer
        if peer.write != peer.read:
            self._peers[peer.write] = peer

    def _peer_ready(self, descriptor: int, events: int) -> None:
        peer = self._peers.get(descriptor)
        if peer is None:
            return
        if events & select.POLLOUT:
            peer.flush()
        if descriptor != peer.read or not events & ~select.POLLOUT:
            return
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(peer)
            return
        try:
            for kind, session, channel, payload in peer.parser.feed(data):
                self._frame(Answer(peer, session, channel), kind, payload)
        except frames.Malformed:
            self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        for descriptor in {peer.read, peer.write}:
            self._forget(descriptor)
            self._peers.pop(descriptor, None)
        self._drop(peer, None)
        peer.close()

    def _drop(self, peer: Peer, session: bytes | None) -> None:
        """A client is gone: its runs end, what it had not finished asking never happened."""
        for key, operation in list(self._operations.items()):
            if operation.answer.peer is peer and session in (None, operation.answer.session):
                if operation.child is None:
                    del self._operations[key]
                else:
                    self._stop(operation, "stop")

    # --- requests ---

    def _frame(self, answer: Answer, kind: int, payload: bytes) -> None:
        lease = answer.peer.leases.get(answer.session)
        if lease:
            answer.peer.leases[answer.session] = (lease[0], now() + lease[0])
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
            self._collect(operation.header, payload, _MAX_HEADER) if operation else None
        elif kind == frames.CODE:
            self._collect(operation.code, payload, frames.MAX_CODE) if operation else None
        elif kind == frames.DATA:
            if operation and not operation.input_ended:
                limit = frames.MAX_STDIN if operation.kind == "run" else 2 * frames.MAX_STDIN
                self._collect(operation.input, payload, limit)
        elif kind == frames.END:
            if operation and not operation.input_ended:
                operation.input_ended = True
                if operation.kind == "run":
                    self._begin_run(operation)
                elif operation.kind == "setup":
                    self._set_up(operation)
        elif kind == frames.STOP:
            if operation and operation.child is not None:
                self._stop(operation, "stop")
            else:
                self._operations.pop(answer.key, None)
                answer.error("invalid", "nothing to stop")
        else:
            self._simple(answer, kind, frames.unpack_dict(payload))

    def _simple(self, answer: Answer, kind: int, fields: dict[str, object]) -> None:
        if kind == frames.HELLO:
            lease = _number(fields, "lease", 0)
            if lease > 0:
                answer.peer.leases[answer.session] = (lease, now() + lease)
            containment = "pid namespaces" if self._rules.pid_namespaces else "sweep"
            python = "{}.{}.{}".format(*sys.version_info[:3])
            welcome = {"version": VERSION, "boot": self._boot, "containment": containment, "python": python}
            answer.fields(frames.WELCOME, {**welcome, "ttl": self._ttl(), "ready": self._ready})
        elif kind == frames.CANCEL:
            self._cancel(answer, str(fields.get("id", "")))
        elif kind == frames.PING:
            answer.fields(frames.DONE, {"ttl": self._ttl()})
        elif kind == frames.EXTEND:
            self._extend(_number(fields, "ttl", 0))
            answer.fields(frames.DONE, {"ttl": self._ttl()})
        elif kind in (frames.READ, frames.WRITE):
            operation = self._open("read" if kind == frames.READ else "write", answer, fields)
            if operation:
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
        operation = Operation(kind, answer, fields)
        self._operations[answer.key] = operation
        return operation

    def _collect(self, into: bytearray, data: bytes, limit: int) -> None:
        if len(into) + len(data) > limit:
            raise frames.Malformed(f"more than {limit} bytes")
        into += data

    def _ttl(self) -> int | None:
        return None if self._deadline is None else int((self._deadline - now()) * 1000)

    def _extend(self, ttl: int) -> None:
        if self._deadline is not None:
            self._deadline = max(self._deadline, now() + ttl / 1000)

    def _cancel(self, answer: Answer, execution: str) -> None:
        for operation in self._operations.values():
            if operation.execution == execution and operation.child is not None:
                operation.waiting.append(answer)
                self._stop(operation, "stop")
                return
        known = execution in self._seen
        self._claim(execution)  # so that it does not run when it comes late
        answer.fields(frames.DONE, {"known": known})

    def _claim(self, execution: str) -> bool:
        if execution in self._seen:
            return False
        self._seen[execution] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return True

    # --- operations ---

    def _begin_run(self, operation: Operation) -> None:
        fields = frames.unpack_dict(bytes(operation.header))
        operation.fields = fields
        execution = fields.get("id")
        timeout = _number(fields, "timeout", 0)
        if not isinstance(execution, str) or not execution or timeout <= 0:
            raise frames.Malformed("a run needs an id and a time-out")
        env = dict(self._env)
        more = fields.get("env")
        if isinstance(more, dict):
            env.update({str(k): str(v) for k, v in more.items()})
        spec = self._program(operation, env)
        if spec is None:
            return
        if not self._claim(execution):
            self._abandon(operation, "seen", "this execution id was used before")
            return
        operation.execution = execution
        self._extend(_number(fields, "ttl", 0))
        operation.oom_before = self._oom_kills()
        operation.started = now()
        operation.deadline = operation.started + timeout / 1000
        if not self._launch(operation, spec):
            return
        operation.answer.fields(frames.ACCEPTED, {})

    def _program(self, operation: Operation, env: dict[str, str]) -> dict[str, object] | None:
        """What the zygote is to start; None when the client was told why it cannot be."""
        argv = operation.fields.get("argv")
        spec: dict[str, object] = {"kind": "run", "env": env, "path": "", "limit": 0}
        if isinstance(argv, list):
            if not argv:
                raise frames.Malformed("an empty command")
            spec["argv"] = [str(x) for x in argv]
            return spec
        language = str(operation.fields.get("language"))
        if language not in languages.SUFFIXES:
            self._abandon(operation, "unsupported", "unknown language")
            return None
        return {**spec, "language": language, "fresh": operation.fields.get("mode") == "fresh"}

    def _launch(self, operation: Operation, spec: dict[str, object]) -> bool:
        try:
            spare = spec.get("language") == "javascript" and not spec["fresh"] and self._take_spare(operation, spec)
            if not spare:
                self._start(operation, spec)
        except OSError as error:
            self._abandon(operation, "busy", "cannot start: " + (error.strerror or str(error)))
            return False
        return operation.child is not None

    def _start(self, operation: Operation, spec: dict[str, object]) -> None:
        child = Child(self._next_slot(), "")
        language = spec.get("language")
        env = spec["env"]
        assert isinstance(env, dict)
        extra = b""
        if isinstance(language, str):
            source = self._store(child, language, operation.code)
            argv = languages.command(language, bool(spec["fresh"]), source, str(env.get("PATH", "")))
            if argv is None:
                child.remove_folder()
                self._abandon(operation, "unsupported", language + " is not installed in this sandbox")
                return
            spec.update(path=source, argv=argv)
            if language == "javascript":
                extra = languages.node_input(source, self._rules.home, None)
        with_stdin = bool(operation.input) or operation.kind == "write"
        child.start(self._control, spec, with_stdin, bool(extra))
        self._bind(child, operation)
        if extra:
            self._hand_over(child, extra)
        if language == "javascript":
            self._make_spare()

    def _begin_file(self, operation: Operation) -> None:
        path, limit = str(operation.fields.get("path", "")), _number(operation.fields, "limit", 0)
        spec = {"kind": operation.kind, "env": {}, "path": path, "limit": limit, "argv": []}
        if self._launch(operation, spec) and operation.kind == "write":
            operation.answer.fields(frames.ACCEPTED, {})

    def _bind(self, child: Child, operation: Operation | None) -> None:
        self._children[child.slot] = (child, operation)
        if operation is not None:
            operation.child = child
        for name in ("stdin", "stdout", "stderr", "report"):
            if getattr(child, name) >= 0:
                self._pipes[getattr(child, name)] = (child, name)

    def _store(self, child: Child, language: str, code: bytearray) -> str:
        """The source as a file that the user can read and not change: tracebacks show its lines."""
        child.folder = self._code_dir + "/" + str(child.slot)
        os.mkdir(child.folder, 0o755)
        path = child.folder + "/main." + languages.SUFFIXES[language]
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(code)
            while view:
                view = view[os.write(file, view) :]
        finally:
            os.close(file)
        return path

    def _next_slot(self) -> int:
        self._slots += 1
        return self._slots

    def _abandon(self, operation: Operation, code: str, message: str) -> None:
        self._operations.pop(operation.answer.key, None)
        operation.answer.error(code, message)

    def _stop(self, operation: Operation, reason: str) -> None:
        if not operation.reason and operation.child is not None and not operation.child.ended:
            operation.reason = reason
            zygote.send(self._control, zygote.KILL, operation.child.slot)

    # --- the waiting node ---

    def _make_spare(self) -> None:
        """Start a node that waits for source. Only once javascript was used: an idle one takes 40 MB."""
        if self._spare is not None:
            return
        child = Child(self._next_slot(), "")
        argv = languages.command("javascript", True, "", self._env.get("PATH", ""))
        try:
            spec = {"kind": "run", "env": self._env, "path": "", "limit": 0, "argv": argv}
            child.start(self._control, spec, True, True)
        except OSError:
            return
        self._spare = child
        self._bind(child, None)

    def _take_spare(self, operation: Operation, spec: dict[str, object]) -> bool:
        child, self._spare = self._spare, None
        if child is None:
            return False
        env = spec["env"]
        assert isinstance(env, dict)
        source = self._store(child, "javascript", operation.code)
        self._bind(child, operation)
        self._hand_over(child, languages.node_input(source, self._rules.home, env))
        self._make_spare()
        return True

    def _hand_over(self, child: Child, data: bytes) -> None:
        descriptor, child.extra = child.extra, -1
        os.set_blocking(descriptor, True)
        try:
            os.write(descriptor, data)
        except BrokenPipeError:
            pass  # it has died meanwhile, which its report will tell
        finally:
            os.close(descriptor)

    # --- children ---

    def _zygote_speaks(self) -> bool:
        message, _ = zygote.receive(self._control)
        if message is None:
            return False
        operation, slot, number = message
        if slot in self._children:
            child, _ = self._children[slot]
            if operation == zygote.FAILED:
                child.failure = number
            else:
                child.read_report()
                child.gone = True
                if child.status is None and not self._rules.pid_namespaces:
                    self._sweep_strays()
            self._settle(child)
        return True

    def _sweep_strays(self) -> None:
        """The init of a run was killed: what it leaves became children of PID 1."""
        sweep.kill_descendants(spared=self._zygote_pid)

    def _pipe_ready(self, descriptor: int) -> None:
        child, name = self._pipes[descriptor]
        operation = self._children[child.slot][1]
        if name == "report":
            child.read_report()
            if child.status is not None:
                self._settle(child)
            else:
                self._close_pipe(child, name)  # the init was killed; the zygote will say so
        elif name == "stdin":
            assert operation is not None
            self._feed(child, operation)
        else:
            data = read_some(descriptor)
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
        self._pipes.pop(descriptor, None)
        os.close(descriptor)
        setattr(child, name, -1)

    def _settle(self, child: Child) -> None:
        """Nothing of the child is alive any more: answer once, and clear up when the zygote has let go as well."""
        operation = self._children[child.slot][1]
        if operation is not None and self._operations.get(operation.answer.key) is operation:
            operation.drain()
            operation.finish(self._oom_kills())
            del self._operations[operation.answer.key]
        if child is self._spare:
            self._spare = None
        for name in ("stdin", "stdout", "stderr", "report"):
            if getattr(child, name) >= 0:
                self._close_pipe(child, name)
        child.close()
        child.remove_folder()
        if child.gone or child.failure:
            del self._children[child.slot]

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
