"""The zygote: a process forked from the agent before any client spoke to it, which forks a child for every run.

It never sees a client's bytes except what one run needs, so a run finds nothing of another run in its memory. It
alone signals and reaps runs, hence never a reused pid. Agent and zygote talk over a SEQPACKET socket: `(operation,
slot, number)` and descriptors.

A run is two processes: a small init (PID 1 of the run's own PID namespace) and the user's program below it. When the
program ends, or the init is killed, nothing of the run is left. Where no PID namespace can be made, the init is a
subreaper that hunts its descendants.
"""

from __future__ import annotations

import _socket
import array
import errno
import os
import select
import struct
import sys

from nexus.adapters.agent.guest import confine, fileops, frames, kernel, sweep
from nexus.adapters.agent.guest.kernel import signals

TYPE_CHECKING = False  # `typing` is not imported for this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

MESSAGE = struct.Struct("=BIi")
START, KILL, OPEN = 1, 2, 5
FAILED, GONE = 3, 4
STATUS = struct.Struct("=i")
LENGTH = struct.Struct("=I")
SPEC, STDIN, STDOUT, STDERR, REPORT = range(5)
"""The descriptors that come with START, in this order. The program's spec comes later, through the first.

With OPEN comes the one from which a session's init hears of its runs.
"""


def receive(control: _socket.socket) -> tuple[tuple[int, int, int] | None, list[int]]:
    """One message and its descriptors; (None, []) at the end of the stream."""
    fds = array.array("i")
    data, ancillary, _, _ = control.recvmsg(
        MESSAGE.size, _socket.CMSG_SPACE(8 * fds.itemsize), _socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if len(data) != MESSAGE.size:
        return None, list(fds)
    operation, slot, number = MESSAGE.unpack(data)
    return (operation, slot, number), list(fds)


def send(control: _socket.socket, operation: int, slot: int, number: int = 0, fds: list[int] | None = None) -> None:
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    control.sendmsg([MESSAGE.pack(operation, slot, number)], ancillary)


def serve(control: _socket.socket, rules: confine.Rules) -> Callable[[], object]:
    """Fork runs until the agent goes away.

    Returns in a *child* alone, with what it is to do; the caller must then get out of the way.
    """
    own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if rules.pid_namespaces else -1
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signals.signal(signals.SIGCHLD, lambda *_: None)
    signals.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    slots: dict[int, int] = {}
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == wake_read:
                os.read(wake_read, 512)
                continue
            message, fds = receive(control)
            if message is None:
                os._exit(0)
            operation, slot, _ = message
            if operation in (START, OPEN):
                try:
                    pid = _fork(own_namespace)
                except OSError as error:
                    send(control, FAILED, slot, error.errno or errno.EIO)
                else:
                    if pid == 0:
                        control.detach()  # or its finalizer would one day close a descriptor of the program
                        signals.set_wakeup_fd(-1)
                        return _init(rules, fds) if operation == START else _attend(rules, fds)
                    slots[pid] = slot
                for fd in fds:
                    os.close(fd)
            else:
                for pid, its_slot in slots.items():
                    if its_slot == slot:
                        # As PID 1 of its namespace it takes everything along; a subreaper has to hunt first.
                        os.kill(pid, signals.SIGKILL if rules.pid_namespaces else signals.SIGTERM)
        while slots:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in slots:
                send(control, GONE, slots.pop(pid))


def _fork(own_namespace: int) -> int:
    if own_namespace < 0:
        return os.fork()
    kernel.unshare(kernel.CLONE_NEWPID)
    try:
        return os.fork()
    finally:
        if os.getpid() != 1:  # the child is PID 1 already, and must not go back
            kernel.setns(own_namespace, kernel.CLONE_NEWPID)


def _init(rules: confine.Rules, fds: list[int]) -> Callable[[], object]:
    """Be the run's init: start the program, wait for it, leave nothing alive, report its wait status."""
    try:
        for number in (signals.SIGCHLD, signals.SIGINT, signals.SIGTERM):
            signals.signal(number, signals.SIG_DFL)
        if rules.pid_namespaces:
            confine.private_mounts(rules.code_dir, rules.data_bytes)
        else:
            kernel.become_subreaper()
            signals.signal(signals.SIGTERM, sweep.interrupt)
        status = -1
        try:
            program = os.fork()
            if program == 0:
                return _program(rules, fds)
            confine.keep_only([fds[REPORT]])
            pid = -1
            while pid != program:
                pid, status = os.waitpid(-1, 0)
            signals.signal(signals.SIGTERM, signals.SIG_IGN)
        except sweep.Interrupted:
            status = -1
        if rules.pid_namespaces:
            _kill_namespace()
        else:
            sweep.kill_descendants(rules.uid)
        if status >= 0:
            os.write(fds[REPORT], STATUS.pack(status))
        os._exit(0)
    except BaseException as error:
        _explain(fds, error)


def _attend(rules: confine.Rules, fds: list[int]) -> Callable[[], object]:
    from nexus.adapters.agent.guest import session

    return session.attend(rules, fds[0])


def _kill_namespace() -> None:
    try:
        os.kill(-1, signals.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ChildProcessError, ProcessLookupError):
        pass


def _program(rules: confine.Rules, fds: list[int]) -> Callable[[], object]:
    """Become the user's program. Returns only for python in this very interpreter: what runs it."""
    placed = False
    try:
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        # A child that was forked ahead of time waits now: where other runs can see it, as nobody whom they can touch.
        if rules.pid_namespaces:
            confine.become_user(rules)
        spec = read_spec(fds[SPEC])
        if spec is None:
            os._exit(0)
        argv, env, limit = spec["argv"], spec["env"], spec["limit"]
        assert isinstance(env, dict)
        assert isinstance(argv, list)
        assert isinstance(limit, int)
        confine.place(fds[STDIN : STDERR + 1], [fds[SPEC]] if spec["extra"] else [])
        placed = True
        if not rules.pid_namespaces:
            confine.become_user(rules)
        confine.enter(rules.home, bool(argv))
        if argv:
            _execute(argv, env)
        os.environ.clear()
        os.environ.update(env)
        if spec["kind"] != "run":
            fileops.perform(str(spec["kind"]), str(spec["path"]), limit)
            os._exit(0)
        return lambda: run_script(str(spec["path"]), rules.home)
    except BaseException as error:
        os.write(2 if placed else fds[STDERR], f"nexus: cannot start: {error!r}\n".encode("utf-8", "replace"))
        os._exit(126)


def _execute(argv: list[str], env: dict[str, str]) -> None:
    """Become another program, or leave with the codes that a shell gives."""
    code, why = 127, "command not found"
    folders = [""] if "/" in argv[0] else [folder + "/" for folder in env.get("PATH", os.defpath).split(":")]
    for folder in folders:
        try:
            os.execve(folder + argv[0], argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            code, why = 126, os.strerror(error.errno or 0)
        except ValueError as error:
            code, why = 126, str(error)
    os.write(2, f"{argv[0]}: {why}\n".encode("utf-8", "surrogateescape"))
    os._exit(code)


def read_spec(descriptor: int) -> dict[str, object] | None:
    """The spec, and not a byte of what follows it; None when none came."""
    head = _read_all(descriptor, LENGTH.size)
    if head is None:
        return None
    body = _read_all(descriptor, LENGTH.unpack(head)[0])
    return None if body is None else frames.unpack_dict(body)


def _read_all(descriptor: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            return None
        data += part
    return data


def _explain(fds: list[int], error: BaseException) -> NoReturn:
    """The run never started: say so where the user looks, and leave without a status."""
    try:
        os.write(fds[STDERR], f"nexus: cannot start: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(1)


def run_script(path: str, home: str) -> None:
    """Run python source as `__main__` in this interpreter, with the agent gone from what it can import."""
    from nexus.adapters.agent.guest import ending, script

    known = leave_no_trace(home)
    own = (home + "/", "/tmp/", "/dev/shm/", "/var/tmp/")
    try:
        script.run(path)  # type: ignore[no-untyped-call]
    except SystemExit as reason:
        ending.leave(reason, own, known)
        raise
    ending.leave(None, own, known)


def leave_no_trace(home: str) -> set[str]:
    """Take the agent out of what can be imported, and put the user's home in; the modules that there are."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "nexus"]:
        del sys.modules[name]
    known = set(sys.modules)
    sys.path.insert(0, home)
    signals.signal(signals.SIGINT, signals.default_int_handler)
    return known
