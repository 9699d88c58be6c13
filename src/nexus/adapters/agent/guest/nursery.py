"""Every program of the sandbox: forking them ahead of time, turning them into what a run asks for, noticing their end.

One child is always waiting, with its namespaces made and its mounts done, so that a run starts with none of that.
Once javascript was used, a node waits as well; not before, since an idle one takes 40 MB.
"""

from __future__ import annotations

import _socket
import os

from nexus.adapters.agent.guest import languages, sweep, zygote
from nexus.adapters.agent.guest.child import PIPES, Child
from nexus.adapters.agent.guest.confine import Rules
from nexus.adapters.agent.guest.operation import Operation
from nexus.adapters.agent.guest.session import Session

MAX_SESSIONS = 8

Spec = dict[str, object]


class Nursery:
    """What the agent is to watch: `pipes` maps descriptors to (child, name of the pipe), `sessions` to sessions."""

    def __init__(self, control: _socket.socket, zygote_pid: int, rules: Rules, code_dir: str) -> None:
        self.pipes: dict[int, tuple[Child, str]] = {}
        self.sessions: dict[int, Session] = {}
        self._control = control
        self._zygote_pid = zygote_pid
        self._rules = rules
        self._code_dir = code_dir
        self._children: dict[int, tuple[Child, Operation | None]] = {}
        self._slots = 0
        self._spare: Child | None = None
        self._node: Child | None = None

    # --- starting ---

    def start(self, operation: Operation, spec: Spec) -> None:
        """Start a program that needs no source. Raises OSError when nothing more can be started; then nothing was."""
        child = self._take()
        self._bind(child, operation)
        child.become(spec)
        self.refill()

    def start_source(self, operation: Operation, spec: Spec, language: str, fresh: bool) -> bool:
        """Start source text of a language. False when its interpreter is not there. Raises OSError as `start`."""
        if language == "javascript" and not fresh and self._start_waiting_node(operation, spec):
            return True
        env = spec["env"]
        assert isinstance(env, dict)
        program = languages.program(language, fresh, str(env.get("PATH", "")))
        if program is None:
            return False
        child = self._take()
        try:
            path = self._store(child, language, operation.code)
        except OSError:
            self._give_back(child)
            raise
        self._bind(child, operation)
        node = language == "javascript"
        extra = languages.node_input(path, self._rules.home, None) if node else None
        child.become({**spec, "path": path, "argv": program + ([] if node or not program else [path])}, extra)
        if node:
            self._make_node(env)
        self.refill()
        return True

    def refill(self) -> None:
        """Have a child waiting; without it the next run forks one itself."""
        if self._spare is None:
            try:
                self._spare = self._fork()
            except OSError:
                pass

    def _take(self) -> Child:
        child, self._spare = self._spare, None
        return child if child is not None else self._fork()

    def _give_back(self, child: Child) -> None:
        child.remove_folder()
        if self._spare is None:
            self._spare = child
        else:
            child.end_spec()

    def _fork(self) -> Child:
        self._slots += 1
        child = Child(self._slots, self._control)
        child.fork()
        self._bind(child, None)
        return child

    def _bind(self, child: Child, operation: Operation | None) -> None:
        self._children[child.slot] = (child, operation)
        if operation is not None:
            operation.child = child
        for name in PIPES:
            if getattr(child, name) >= 0:
                self.pipes[getattr(child, name)] = (child, name)

    def _store(self, child: Child, language: str, code: bytearray) -> str:
        """The source as a file that the user can read and not change: tracebacks show its lines."""
        folder = self._code_dir + "/" + str(child.slot)
        os.mkdir(folder, 0o755)
        child.folder = folder
        path = folder + "/main." + languages.SUFFIXES[language]
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(code)
            while view:
                view = view[os.write(file, view) :]
        finally:
            os.close(file)
        return path

    # --- the node that waits ---

    def _make_node(self, env: dict[str, str]) -> None:
        program = languages.program("javascript", True, str(env.get("PATH", "")))
        if self._node is not None or program is None:
            return
        try:
            self._node = self._fork()
        except OSError:
            return
        spec = {"kind": "run", "env": env, "path": "", "limit": 0, "argv": program}
        self._node.become(spec, extra=b"", more=True)

    def _start_waiting_node(self, operation: Operation, spec: Spec) -> bool:
        child = self._node
        env = spec["env"]
        assert isinstance(env, dict)
        if child is None:
            return False
        path = self._store(child, "javascript", operation.code)
        self._node = None
        self._bind(child, operation)
        child.hand_over(languages.node_input(path, self._rules.home, env))
        self._make_node(env)
        return True

    # --- sessions ---

    def start_in_session(self, operation: Operation, spec: Spec, name: str, fresh: bool) -> bool:
        """Start python source in the session of that name, a new one if there is none or `fresh` asks for it.

        False while the session is running something. Raises OSError as `start`.
        """
        session = next((x for x in self.sessions.values() if x.name == name), None)
        if session is not None and session.running and not self._children[session.running][0].ended:
            return False
        if session is not None and fresh:
            last = self.end_session(session)
            if last is not None:
                del self._children[last.slot]  # it has ended and was answered; its session cannot say so any more
            session = None
        operation.begins_session = session is None
        if session is None:
            if len(self.sessions) >= MAX_SESSIONS:
                raise OSError("there are " + str(MAX_SESSIONS) + " sessions already")
            self._slots += 1
            session = Session.open(name, self._slots, self._control)
            self.sessions[session.control.fileno()] = session
        self._slots += 1
        child = Child(self._slots, session.control)
        try:
            path = self._store(child, "python", operation.code)
            child.fork()
        except OSError:
            child.remove_folder()
            raise
        session.running = child.slot
        self._bind(child, operation)
        child.become({**spec, "path": path})
        return True

    def end_session(self, session: Session) -> Child | None:
        """Let go of it, whereupon it ends; the child that was running in it."""
        del self.sessions[session.control.fileno()]
        session.control.close()
        return self._children[session.running][0] if session.running else None

    def hear_session(self, session: Session) -> Child | None:
        """News from a session: a child of which nothing is alive any more."""
        try:
            message, _ = zygote.receive(session.control)
        except BlockingIOError:
            return None
        except OSError:
            message = None
        if message is None:
            child = self.end_session(session)
        else:
            slot = message[1]
            child = self._children[slot][0] if slot in self._children else None
            session.running = 0 if slot == session.running else session.running
        if child is not None:
            child.read_report()
            child.gone = True
        return child

    # --- while they run ---

    def operation_of(self, child: Child) -> Operation | None:
        """What the child does; None while it waits."""
        return self._children[child.slot][1]

    def hear(self) -> tuple[bool, Child | None]:
        """News from the zygote: whether it is still there, and a child of which nothing is alive any more."""
        message, _ = zygote.receive(self._control)
        if message is None:
            return False, None
        operation, slot, number = message
        if slot not in self._children:
            return True, None
        child = self._children[slot][0]
        if operation == zygote.FAILED:
            child.failure = number
        else:
            child.read_report()
            child.gone = True
            if child.status is None and not self._rules.pid_namespaces:
                # The init of a run was killed: what it leaves became children of PID 1.
                sweep.kill_descendants(self._rules.uid, spared=self._zygote_pid)
        return True, child

    def bury(self, child: Child) -> list[int]:
        """Clear up after a child of which nothing is alive; returns the descriptors not to be watched any more."""
        if child is self._spare:
            self._spare = None
        if child is self._node:
            self._node = None
        watched = [getattr(child, name) for name in PIPES if getattr(child, name) >= 0]
        for descriptor in watched:
            self.pipes.pop(descriptor, None)
        child.remove_folder()
        if child.gone or child.failure:
            del self._children[child.slot]
        return watched
