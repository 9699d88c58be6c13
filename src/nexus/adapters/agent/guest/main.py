"""The agent's start: confine itself, fork the zygote, wait for the word to go, serve.

Two ways in. `local`: descriptors inherited from the launcher, and a *birth channel* on which the agent says that it is ready and waits
until its creator has recorded it; a creator that dies before that leaves no sandbox behind. `stdio`: a container's standard streams.
"""

from __future__ import annotations


import _socket
import gc
import os
import sys

from nexus.adapters.agent.guest import confine, kernel, languages, prepare, server, zygote
from nexus.adapters.agent.guest.kernel import signals

READY, GO = b"R", b"G"
_CODE_DIRS = ("/run/nexus", "/dev/shm/.nexus", "/tmp/.nexus")  # noqa: S108  (for a container that did not prepare one)


def local(config: dict[str, object], birth: int, script_text: str) -> None:
    """PID 1 of a bubblewrap sandbox. `birth` is the birth channel."""
    kernel.set_dumpable(False)
    try:
        os.set_inheritable(birth, False)
        for name in ("lock", "listener", "network_exit"):
            descriptor = config.get(name)
            if isinstance(descriptor, int):
                os.set_inheritable(descriptor, False)
        for descriptor in _descriptors(config, "oom"):
            os.set_inheritable(descriptor, False)
        prepare.furnish(config)
        control, pid = _start_zygote(config, script_text)
        listener = config["listener"]
        assert isinstance(listener, int)
        accepting = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, listener)
        accepting.setblocking(False)
    except BaseException as error:
        os.write(birth, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:2000])
        raise
    os.write(birth, READY)
    if os.read(birth, 1) != GO:
        os._exit(1)
    os.close(birth)
    _serve(config, control, pid, accepting, None)


def stdio(config: dict[str, object], script_text: str) -> None:
    """The main process of a container: clients attach to its standard input and output.

    `env` and `code_dir` may be left out of `config`: the container's own environment, and the first folder that can be made.
    """
    kernel.set_dumpable(False)
    if os.getpid() != 1:
        kernel.become_subreaper()
    for number in (signals.SIGTERM, signals.SIGINT):
        signals.signal(number, lambda *_: os._exit(0))
    config.setdefault("env", dict(os.environ))
    config.setdefault("code_dir", _make_code_dir())
    config.setdefault("oom", _oom_counters())
    # Programs of the container's image must not find the client's stream at 0 and 1.
    shared = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    control, pid = _start_zygote(config, script_text)
    _serve(config, control, pid, None, shared)


def _start_zygote(config: dict[str, object], script_text: str) -> tuple[_socket.socket, int]:
    languages.SCRIPT_TEXT = script_text
    # From here on nothing that the user writes can be imported by the agent or the zygote.
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".")]
    for number in (signals.SIGINT, signals.SIGHUP):
        signals.signal(number, signals.SIG_IGN if number == signals.SIGHUP else signals.SIG_DFL)
    gc.freeze()
    mine, other = _pair()
    pid = os.fork()
    if pid == 0:
        mine.detach()
        signals.signal(signals.SIGHUP, signals.SIG_DFL)
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
        rules = confine.Rules(config)
        confine.keep_only([0, 1, 2, other.fileno()])
        path = zygote.serve(other, rules)
        if path is not None:
            zygote.run_script(path, rules.home)
        os._exit(1)
    other.close()
    return mine, pid


def _pair() -> tuple[_socket.socket, _socket.socket]:
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    return first, second


def _serve(
    config: dict[str, object],
    control: _socket.socket,
    zygote_pid: int,
    listener: _socket.socket | None,
    shared: tuple[int, int] | None,
) -> None:
    server.Server(config, confine.Rules(config), control, zygote_pid, listener, shared).serve()
    os._exit(0)


def _make_code_dir() -> str:
    for folder in _CODE_DIRS:
        try:
            os.mkdir(folder, 0o711)
        except FileExistsError:
            if os.stat(folder).st_uid != os.getuid():
                continue
        except OSError:
            continue
        os.chmod(folder, 0o711)
        return folder
    raise OSError("no folder for source files: none of {} can be made".format(", ".join(_CODE_DIRS)))


def _oom_counters() -> list[int]:
    """The container's own counter of processes killed for memory, cgroup 2 or 1."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            return [os.open(path, os.O_RDONLY | os.O_CLOEXEC)]
        except OSError:
            continue
    return []


def _descriptors(config: dict[str, object], name: str) -> list[int]:
    value = config.get(name)
    return [x for x in value if isinstance(x, int)] if isinstance(value, list) else []
