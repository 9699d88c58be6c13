"""The agent's event loop, in one thread of PID 1: who connects, what they ask, and when to wake up."""

from __future__ import annotations

import _socket
import os
import select
import sys

from nexus.adapters.agent.guest import frames
from nexus.adapters.agent.guest.child import now
from nexus.adapters.agent.guest.confine import Rules
from nexus.adapters.agent.guest.desk import Desk
from nexus.adapters.agent.guest.nursery import Nursery
from nexus.adapters.agent.guest.peers import Answer, Peer
from nexus.adapters.agent.guest.watching import Deadline, Watcher, number

VERSION = 1
_MAX_PEERS = 128
_BACKLOG = 4 * 1024 * 1024
"""Bytes waiting for a client that does not read, above which its programs' output is left in their pipes."""
_INPUT = 1024 * 1024
"""Bytes of a file waiting to be written, above which no more are read from its client."""
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
        self._watcher = Watcher()
        self._deadline = Deadline(config)
        self._nursery = Nursery(control, zygote_pid, rules, str(config["code_dir"]))
        self._desk = Desk(config, self._nursery, self._watcher, self._deadline)
        self._control = control.fileno()
        self._listener = listener
        self._peers: dict[int, Peer] = {}
        self._welcome: dict[str, object] = {
            "version": VERSION,
            "boot": os.urandom(8).hex(),
            "containment": "pid namespaces" if rules.pid_namespaces else "sweep",
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            "notes": config.get("notes") or [],
        }

    # --- the loop ---

    def serve(self) -> None:
        """Until the sandbox's deadline has passed, its zygote is lost, or a client ends it."""
        self._nursery.refill()
        while self._step():
            pass

    def _step(self) -> bool:
        for descriptor, events in self._watcher.wait(self._wanted(), self._patience()):
            if descriptor == self._control:
                there, child = self._nursery.hear()
                if child is not None:
                    self._desk.settle(child)
                if not there:
                    return False
            elif descriptor in self._nursery.sessions:
                self._hear_session(descriptor)
            elif descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._nursery.pipes:
                self._desk.pipe_ready(descriptor)
            elif descriptor in self._peers:
                self._peer_ready(self._peers[descriptor], events)
        at = now()
        self._desk.end_overdue(at)
        return not self._deadline.passed(at)

    def _hear_session(self, descriptor: int) -> None:
        session = self._nursery.sessions[descriptor]
        child = self._nursery.hear_session(session)
        if descriptor not in self._nursery.sessions:
            self._watcher.forget(descriptor)
        if child is not None:
            self._desk.settle(child)

    def _wanted(self) -> dict[int, int]:
        """Which descriptors are of interest now, and what about them."""
        wanted = dict.fromkeys([self._control, *self._nursery.sessions], select.POLLIN)
        if len(self._peers) < _MAX_PEERS:
            wanted[self._listener.fileno()] = select.POLLIN
        operations = self._desk.operations.values()
        full = [x.answer.peer for x in operations if x.kind == "write" and len(x.input) > _INPUT]
        for peer in self._peers.values():
            # Who does not take his answers is not heard any further.
            heard = peer not in full and peer.backlog < _BACKLOG
            wanted[peer.descriptor] = (select.POLLIN if heard else 0) | (select.POLLOUT if peer.backlog else 0)
        for descriptor, (child, name) in self._nursery.pipes.items():
            operation = self._nursery.operation_of(child)
            if name == "stdin":
                if operation is not None and (operation.input or operation.input_ended):
                    wanted[descriptor] = select.POLLOUT
            elif name == "report" or operation is None or operation.answer.peer.backlog < _BACKLOG:
                wanted[descriptor] = select.POLLIN
        return wanted

    def _patience(self) -> float | None:
        moments = [op.deadline for op in self._desk.operations.values() if op.deadline is not None]
        if self._deadline.next_look is not None:
            moments.append(self._deadline.next_look)
        return min(moments) - now() if moments else None

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
        self._desk.lose(peer)
        self._watcher.forget(peer.descriptor)
        del self._peers[peer.descriptor]
        peer.close()

    # --- requests ---

    def _frame(self, answer: Answer, kind: int, payload: bytes) -> None:
        try:
            self._request(answer, kind, payload)
        except frames.Malformed as error:
            self._desk.operations.pop(answer.key, None)
            answer.error("invalid", str(error))

    def _request(self, answer: Answer, kind: int, payload: bytes) -> None:
        operation = self._desk.operations.get(answer.key)
        if kind in (frames.RUN, frames.SETUP):
            self._desk.header(answer, "run" if kind == frames.RUN else "setup", payload)
        elif kind in (frames.CODE, frames.DATA, frames.END):
            if operation is not None and not operation.input_ended:
                self._desk.input(operation, kind, payload)
        elif kind == frames.STOP:
            if operation is not None and operation.child is not None:
                self._desk.stop(operation, "stop")
            else:
                self._desk.operations.pop(answer.key, None)
                answer.error("invalid", "nothing to stop")
        else:
            self._question(answer, kind, frames.unpack_dict(payload))

    def _question(self, answer: Answer, kind: int, fields: dict[str, object]) -> None:
        if kind == frames.HELLO:
            answer.fields(frames.WELCOME, {**self._welcome, "ttl": self._deadline.ttl, "ready": self._desk.ready})
        elif kind == frames.CANCEL:
            self._desk.cancel(answer, fields.get("id"))
        elif kind in (frames.PING, frames.EXTEND):
            if kind == frames.EXTEND:
                self._deadline.extend(number(fields, "ttl", 0))
            answer.fields(frames.DONE, {"ttl": self._deadline.ttl})
        elif kind in (frames.READ, frames.WRITE):
            self._desk.begin_file("read" if kind == frames.READ else "write", answer, fields)
        elif kind == frames.QUIT:
            os._exit(0)
        else:
            raise frames.Malformed("unknown kind of frame")
