"""The operations that clients asked for: taking them in, starting and feeding them, answering when they are over."""

from __future__ import annotations

import os

from nexus.adapters.agent.guest import frames, languages
from nexus.adapters.agent.guest.child import Child, now
from nexus.adapters.agent.guest.nursery import Nursery
from nexus.adapters.agent.guest.operation import Operation
from nexus.adapters.agent.guest.peers import Answer, Peer
from nexus.adapters.agent.guest.watching import Deadline, Watcher, number

_MAX_OPERATIONS = 64
_ATTEMPTS = 3
_MAX_SEEN = 200_000
_MAX_HEADER = 1024 * 1024
_MAX_ID = 128
_READ = 262144


class Desk:
    """All operations of the sandbox, by the connection and channel on which their clients hear of them."""

    def __init__(self, config: dict[str, object], nursery: Nursery, watcher: Watcher, deadline: Deadline) -> None:
        self.nursery = nursery
        self.operations: dict[tuple[int, int], Operation] = {}
        self.ready = not config.get("await_setup")
        """Whether the environment of runs is known."""
        self._watcher = watcher
        self._deadline = deadline
        env = config.get("env")
        self._env: dict[str, str] = {str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {}
        oom = config.get("oom")
        self._oom = [int(x) for x in oom if isinstance(x, int)] if isinstance(oom, list) else []
        self._seen: dict[str, None] = {}

    # --- taking in ---

    def header(self, answer: Answer, kind: str, payload: bytes) -> None:
        """A part of what describes a run, or of a set-up."""
        operation = self.operations.get(answer.key) or self.open(kind, answer, {})
        if operation is not None and operation.child is None:
            operation.collect(operation.header, payload, _MAX_HEADER)

    def open(self, kind: str, answer: Answer, fields: dict[str, object]) -> Operation | None:
        """A new operation; None when the client was told why not."""
        if answer.key in self.operations:
            raise frames.Malformed("the channel is in use")
        if not self.ready and kind != "setup":
            answer.error("unready", "the sandbox was not set up since it started")
            return None
        if len(self.operations) >= _MAX_OPERATIONS:
            answer.error("busy", f"{_MAX_OPERATIONS} operations are running already")
            return None
        operation = self.operations[answer.key] = Operation(kind, answer, fields)
        return operation

    def input(self, operation: Operation, kind: int, payload: bytes) -> None:
        """What belongs to an operation, or its end: then it starts."""
        if kind == frames.CODE:
            operation.collect(operation.code, payload, frames.MAX_CODE)
        elif kind == frames.DATA:
            # A file's flow is held up before it comes to this; see the server.
            operation.collect(operation.input, payload, frames.MAX_STDIN)
        else:
            operation.input_ended = True
            if operation.kind == "run":
                self._begin_run(operation)
            elif operation.kind == "setup":
                self._set_up(operation)

    def _set_up(self, operation: Operation) -> None:
        """Take the environment and the deadline, which the start did not tell; the first word counts."""
        del self.operations[operation.answer.key]
        fields = frames.unpack_dict(bytes(operation.header))
        env = _variables(fields.get("env"))
        known, self.ready = self.ready, True
        if not known:
            self._env.update(env)
            if isinstance(fields.get("ttl"), int):
                self._deadline.set(number(fields, "ttl", 0))
        operation.answer.fields(frames.DONE, {"known": known})

    def _begin_run(self, operation: Operation) -> None:
        fields = operation.fields = frames.unpack_dict(bytes(operation.header))
        execution, timeout, argv = fields.get("id"), number(fields, "timeout", 0), fields.get("argv")
        language = None if isinstance(argv, list) else str(fields.get("language"))
        if timeout <= 0 or argv == []:
            raise frames.Malformed("a run needs a time-out, and code or a command")
        execution = _id(execution)
        env = {**self._env, **_variables(fields.get("env"))}
        command = [str(x) for x in argv] if isinstance(argv, list) else []
        if any("\0" in word for word in command):
            raise frames.Malformed("a word of a command cannot hold a NUL")
        if language is not None and language not in languages.SUFFIXES:
            self._abandon(operation, "unsupported", "unknown language")
        elif "session" in fields and language != "python":
            self._abandon(operation, "unsupported", "only python has sessions")
        elif execution in self._seen:
            self._abandon(operation, "seen", "this execution id was used before")
        else:
            self._claim(execution)
            operation.execution = execution
            self._deadline.extend(number(fields, "ttl", 0))
            operation.spec = {"kind": "run", "env": env, "path": "", "limit": 0, "argv": command}
            operation.language = language
            if self._launch(operation):
                operation.deadline = operation.started + timeout / 1000
                operation.answer.fields(frames.ACCEPTED, {})

    def begin_file(self, kind: str, answer: Answer, fields: dict[str, object]) -> None:
        """Have a file read, or written with what is to come."""
        operation = self.open(kind, answer, fields)
        if operation is None:
            return
        path, limit = str(operation.fields.get("path", "")), number(operation.fields, "limit", 0)
        operation.input_ended = operation.kind == "read"
        operation.spec = {"kind": operation.kind, "env": {}, "path": path, "limit": limit, "argv": []}
        if self._launch(operation) and operation.kind == "write":
            operation.answer.fields(frames.ACCEPTED, {})

    def _launch(self, operation: Operation) -> bool:
        operation.oom_before = self._oom_kills()
        operation.started = now()
        operation.attempts += 1
        fresh, language = operation.fields.get("mode") == "fresh", operation.language
        session = operation.fields.get("session")
        try:
            if isinstance(session, str):
                if not self.nursery.start_in_session(operation, operation.spec, session, fresh):
                    self._abandon(operation, "busy", "session " + session + " is running something already")
                    return False
            elif language is None:
                self.nursery.start(operation, operation.spec)
            elif not self.nursery.start_source(operation, operation.spec, language, fresh):
                self._abandon(operation, "unsupported", language + " is not installed in this sandbox")
                return False
        except OSError as error:
            self._abandon(operation, "busy", "cannot start: " + (error.strerror or str(error)))
            return False
        return True

    def _abandon(self, operation: Operation, code: str, message: str) -> None:
        self.operations.pop(operation.answer.key, None)
        self._seen.pop(operation.execution, None)  # nothing has happened: it may be tried again
        operation.answer.error(code, message)

    def _claim(self, execution: str) -> None:
        self._seen[execution] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    # --- ending ---

    def lose(self, peer: Peer) -> None:
        """A client is gone: its runs end, what it had not finished asking never happened."""
        for key, operation in list(self.operations.items()):
            if operation.answer.peer is peer:
                del self.operations[key]
                # Under a key that no client has, so that the number of the descriptor can be used again.
                if operation.child is not None:
                    self.operations[(-operation.child.slot, 0)] = operation
                    self.stop(operation, "stop")

    def end_overdue(self, at: float) -> None:
        """End what has run for its time."""
        for operation in list(self.operations.values()):
            if operation.deadline is not None and operation.deadline <= at:
                operation.deadline = None
                self.stop(operation, "timeout")

    def cancel(self, answer: Answer, wanted: object) -> None:
        """End the run of this id, and answer when it is dead."""
        execution = _id(wanted)
        for operation in self.operations.values():
            if operation.execution == execution:
                operation.waiting.append(answer)
                self.stop(operation, "stop")
                return
        known = execution in self._seen
        self._claim(execution)  # so that it does not run when it comes late
        answer.fields(frames.DONE, {"known": known})

    def stop(self, operation: Operation, reason: str) -> None:
        """End an operation that has a process. The first reason counts."""
        if not operation.reason and operation.child is not None and not operation.child.ended:
            operation.reason = reason
            operation.child.kill()

    # --- while they run ---

    def pipe_ready(self, descriptor: int) -> None:
        """Something can be read from or written to a child, or could when the loop looked: it may be another by now."""
        child, name = self.nursery.pipes[descriptor]
        operation = self.nursery.operation_of(child)
        if name == "report":
            ended = child.read_report()
            if child.status is not None:
                self.settle(child)
            elif ended:
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
                operation.fed = True
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
        self._watcher.forget(descriptor)
        self.nursery.pipes.pop(descriptor, None)
        os.close(descriptor)
        setattr(child, name, -1)

    def settle(self, child: Child) -> None:
        """Nothing of the child is alive any more: answer once, and clear up when the zygote has let go as well."""
        operation = self.nursery.operation_of(child)
        key = next((k for k, x in self.operations.items() if x is operation), None)
        again = False
        if operation is not None and key is not None:
            # A child that waited may have been asked for while there was no room, which there is by now.
            again = (
                bool(child.failure) and operation.attempts < _ATTEMPTS and not operation.fed and not operation.reason
            )
            if not again:
                self._answer(operation, child)
                del self.operations[key]
        for descriptor in self.nursery.bury(child):
            self._watcher.forget(descriptor)
        child.close()
        if again and operation is not None:
            self._launch(operation)
        elif operation is not None:  # not when a waiting child could not be forked: the next would fail just as well
            self.nursery.refill()

    def _answer(self, operation: Operation, child: Child) -> None:
        for name in ("stdout", "stderr"):
            for data in child.left_in(name):
                operation.output(name, data)
        operation.finish(self._oom_kills())
        if child.failure:
            self._seen.pop(operation.execution, None)  # it never started

    def _oom_kills(self) -> int:
        """How many processes of this sandbox the kernel has killed for memory."""
        total = 0
        for descriptor in self._oom:
            for line in os.pread(descriptor, 4096, 0).splitlines():
                if line.startswith(b"oom_kill "):
                    total += int(line.split()[1])
        return total


def _id(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID:
        raise frames.Malformed(f"a run has an id of at most {_MAX_ID} characters")
    return value


def _variables(env: object) -> dict[str, str]:
    """Environment variables as a program can be given them."""
    found = {str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {}
    if any(not name or "=" in name or "\0" in name + value for name, value in found.items()):
        raise frames.Malformed("not the name or the value of an environment variable")
    return found
