"""Sessions: python programs that go on where the one before them ended, with its variables.

A session is a small init and a *keeper*, the process that holds the state. For a run the keeper forks, and the child
executes the code. A child that comes to its end is the keeper from then on, and the old one goes; one that was killed,
or left by itself, leaves the state as it was before it: a time-out undoes a run.

The init is the agent's; keepers and runs are the user's, and nothing that they say is believed further than it reaches.
Between runs the keeper is stopped and everything else is dead, so nothing of a session runs while no run does.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
import select
import struct
import sys

from nexus.adapters.agent.guest import confine, kernel, script, sweep, zygote
from nexus.adapters.agent.guest.kernel import signals

TYPE_CHECKING = False  # `typing` is not imported for this
if TYPE_CHECKING:
    from collections.abc import Callable

_WORD = struct.Struct("=BIii")
"""What a keeper says to the init: an operation, the run's slot, a process id, a wait status."""
_ENDED, _DIED = 16, 17
_CHANNEL = 1000
"""The keeper's descriptor for that: out of the way of those that programs get."""
_CANNOT_START = 126 << 8


class _Over(Exception):
    """The session has lost its state."""


# --- the init ------------------------------------------------------------------------------------------------------
def attend(rules: confine.Rules, agent: int) -> Callable[[], object]:
    """Be a session's init, which hears from the agent at that descriptor. Returns in the keeper alone: what it does."""
    try:
        for number in (signals.SIGINT, signals.SIGTERM):
            signals.signal(number, signals.SIG_DFL)
        if rules.pid_namespaces:
            confine.private_mounts(rules.code_dir, rules.data_bytes)
        else:
            kernel.become_subreaper()
            signals.signal(signals.SIGTERM, sweep.interrupt)
        mine, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
        keeper = os.fork()
        if keeper == 0:
            return _become_keeper(rules, other.detach())
        other.close()
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        confine.keep_only([agent, mine.fileno(), wake_read, wake_write])
        init = _Init(rules, _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, agent), mine, keeper)
        try:
            init.serve(wake_read)
        except (_Over, OSError):
            pass
    except sweep.Interrupted:
        pass
    except BaseException:
        os._exit(1)
    if not rules.pid_namespaces:  # where there is one, it ends with its init
        sweep.kill_descendants(rules.uid)
    os._exit(0)


class _Init:
    def __init__(self, rules: confine.Rules, agent: _socket.socket, inner: _socket.socket, keeper: int) -> None:
        self._rules = rules
        self._agent = agent
        self._inner = inner
        self._keeper = keeper
        self._slot = 0
        """The run in progress, or 0."""
        self._report = -1

    def serve(self, wake: int) -> None:
        """Until the agent lets go. Raises _Over when the state is lost."""
        poller = select.poll()
        for descriptor in (self._agent.fileno(), self._inner.fileno(), wake):
            poller.register(descriptor, select.POLLIN)
        while True:
            # Deaths first: a run that has killed its keeper has ended the session, whatever it says after that.
            for descriptor, _ in sorted(poller.poll(), key=lambda event: event[0] != wake):
                if descriptor == wake:
                    os.read(wake, 512)
                    self._bury()
                elif descriptor == self._inner.fileno():
                    self._hear(self._inner.recv(_WORD.size))
                elif not self._heed():
                    return

    def _heed(self) -> bool:
        message, fds = zygote.receive(self._agent)
        if message is None:
            return False
        operation, slot, _ = message
        if operation == zygote.START:
            self._slot, self._report = slot, fds[zygote.REPORT]
            os.kill(self._keeper, signals.SIGCONT)
            given = fds[: zygote.REPORT]  # which is the last, and the init's to write
            zygote.send(self._inner, zygote.START, slot, 0, given)
            for fd in given:
                os.close(fd)
        elif slot == self._slot:
            self._end(None, self._keeper)
        return True

    def _hear(self, said: bytes) -> None:
        if not said:
            raise _Over
        if len(said) != _WORD.size:
            return
        operation, slot, pid, status = _WORD.unpack(said)
        if slot != self._slot or not slot:
            return  # of a run that was ended meanwhile
        if operation == _DIED:
            self._end(status & 0xFFFF, self._keeper)
        elif pid in sweep.descendants():
            self._end(status & 0xFFFF, pid)

    def _end(self, status: int | None, keeper: int) -> None:
        """Leave nothing of the run alive but the keeper, which stands still, and report."""
        self._keeper = keeper
        self._clear()
        if status is not None:
            os.write(self._report, zygote.STATUS.pack(status))
        os.close(self._report)
        slot, self._slot = self._slot, 0
        zygote.send(self._agent, zygote.GONE, slot)

    def _clear(self) -> None:
        if self._rules.pid_namespaces:
            while True:
                os.kill(-1, signals.SIGSTOP)  # what stands still forks no more
                others = sweep.descendants(kept=self._keeper)
                if not others:
                    break
                sweep.signal_all(others, signals.SIGKILL)
                self._bury()
        else:
            sweep.kill_descendants(self._rules.uid, kept=self._keeper)
            os.kill(self._keeper, signals.SIGSTOP)
        if self._keeper not in sweep.descendants():
            raise _Over

    def _bury(self) -> None:
        """Reap what has ended; stop a keeper that somebody has continued while nothing is to run."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WCONTINUED)
            except ChildProcessError:
                raise _Over from None
            if pid == 0:
                return
            if pid != self._keeper:
                continue
            if not os.WIFCONTINUED(status):
                raise _Over
            if not self._slot:
                os.kill(pid, signals.SIGSTOP)


# --- the keeper ----------------------------------------------------------------------------------------------------
def _become_keeper(rules: confine.Rules, channel: int) -> Callable[[], object]:
    try:
        for number in (signals.SIGTERM, signals.SIGCHLD):
            signals.signal(number, signals.SIG_DFL)
        channel = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, _CHANNEL)
        confine.keep_only([channel])
        _rest()
        confine.become_user(rules)
        confine.enter(rules.home, False)
        return lambda: _keep(channel, rules.home)
    except BaseException:
        os._exit(1)


def _keep(descriptor: int, home: str) -> None:
    """Hold the state, and fork for each run."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)
    main = type(sys)("__main__")
    zygote.leave_no_trace(home)
    while True:
        try:
            message, fds = zygote.receive(channel)
            if message is None:
                os._exit(0)
            slot = message[1]
            pid, status = 0, _CANNOT_START
            try:
                pid = os.fork()
            except OSError as error:
                os.write(fds[zygote.STDERR], ("nexus: cannot start: " + str(error) + "\n").encode())
            else:
                if pid == 0:
                    status = _run(main, fds)
                    _rest()
                    channel.send(_WORD.pack(_ENDED, slot, os.getpid(), status))
                    continue
                _, status = os.waitpid(pid, 0)
            for fd in fds:
                os.close(fd)
            channel.send(_WORD.pack(_DIED, slot, 0, status))
        except BaseException:  # of a signal handler that the user's code has left behind
            continue


def _run(main: object, fds: list[int]) -> int:
    """Execute the code in `main`; its wait status, as if the process had ended."""
    spec = zygote.read_spec(fds[zygote.SPEC])
    if spec is None:
        os._exit(0)
    for target, fd in enumerate(fds[zygote.STDIN : zygote.STDERR + 1]):
        os.dup2(fd, target)
    for fd in fds:
        os.close(fd)
    env = spec["env"]
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    _open_streams()
    hook, status = sys.excepthook, 0
    try:
        script.run(str(spec["path"]), main)  # type: ignore[no-untyped-call]
    except SystemExit as reason:
        status = _status(reason)
    except KeyboardInterrupt:
        sys.excepthook, status = hook, signals.SIGINT
    _finish()
    return int(status)


def _open_streams() -> None:
    """Streams that no run before this one has closed, replaced, or left something in."""
    encoding = sys.__stdout__.encoding if sys.__stdout__ is not None else "utf-8"
    for target, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        errors = "backslashreplace" if target == 2 else "surrogateescape"
        stream = open(target, mode, 1, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115 - for the run
        setattr(sys, name, stream)
        setattr(sys, "__" + name + "__", stream)


def _status(reason: SystemExit) -> int:
    code = reason.code
    if code is None:
        return 0
    if isinstance(code, int):
        return (code & 0xFF) << 8
    sys.stderr.write(str(code) + "\n")
    return 1 << 8


def _finish() -> None:
    """What the interpreter would do at its end: wait for threads, hand out what was printed."""
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


def _rest() -> None:
    """Let go of a run's streams."""
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for target in (0, 1, 2):
        os.dup2(nothing, target)
    if nothing > 2:
        os.close(nothing)


# --- the agent's side ----------------------------------------------------------------------------------------------
class Session:
    """A session as the agent knows it."""

    def __init__(self, name: str, slot: int, control: _socket.socket) -> None:
        self.name = name
        self.slot = slot
        self.control = control
        self.running = 0
        """Slot of the run in progress, or 0."""

    @classmethod
    def open(cls, name: str, slot: int, control: _socket.socket) -> Session:
        """Have the zygote fork a session's init. Raises OSError; then nothing has started."""
        mine, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
        try:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [other.fileno()]))]
            control.sendmsg([zygote.MESSAGE.pack(zygote.OPEN, slot, 0)], rights)
        except OSError:
            mine.close()
            raise
        finally:
            other.close()
        mine.setblocking(False)
        return cls(name, slot, mine)
