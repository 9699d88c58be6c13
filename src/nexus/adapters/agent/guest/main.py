"""The agent's start: confine itself, fork the zygote, wait for the word to go, serve.

Two ways in. `local`: descriptors inherited from the launcher, and a *birth channel* on which the agent says that it
is ready and waits until its creator has recorded it; a creator that dies before that leaves no sandbox behind.
`container`: a socket in a folder of its own.
"""

from __future__ import annotations

import _socket
import gc
import os
import sys

from nexus.adapters.agent.guest import confine, kernel, languages, prepare, routing, server, zygote
from nexus.adapters.agent.guest.kernel import signals

READY, GO = b"R", b"G"
NO_PLACE = 98
"""Exit code of a container's agent that cannot make its socket."""


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
        for descriptor in _descriptors(config, "spare"):
            os.close(descriptor)
        prepare.furnish(config)
        control, pid = _start_zygote(config, script_text)
        listener = config["listener"]
        assert isinstance(listener, int)
        accepting = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, listener)
        accepting.setblocking(False)
    except Exception as error:  # not SystemExit: a program that ends in this process's child comes this way
        os.write(birth, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:2000])
        raise
    os.write(birth, READY)
    if os.read(birth, 1) != GO:
        os._exit(1)
    os.close(birth)
    _serve(config, control, pid, accepting)


def container(config: dict[str, object], script_text: str) -> None:
    """PID 1 of a container: clients connect to the unix socket `config["socket"]`, where user code cannot go.

    What is secret is not in `config` but comes with SETUP. `env` adds to the container's own environment.
    """
    kernel.set_dumpable(False)
    for number in (signals.SIGTERM, signals.SIGINT):
        signals.signal(number, lambda *_: os._exit(0))
    env = config.get("env")
    config["env"] = {"LANG": "C.UTF-8", **os.environ, **(env if isinstance(env, dict) else {})}
    config["await_setup"] = True
    config["notes"] = _keep_in(config.get("unreachable"))
    config.setdefault("oom", _oom_counters())
    control, pid = _start_zygote(config, script_text)
    try:
        listener = _listen(str(config["socket"]))
    except OSError:
        os._exit(NO_PLACE)
    _serve(config, control, pid, listener)


def _keep_in(unreachable: object) -> list[str]:
    """Close the container's network towards `unreachable` and its neighbours; what could not be done, in words."""
    if not isinstance(unreachable, list):
        return []
    try:
        routing.keep_in([str(network) for network in unreachable])
        kernel.give_up(kernel.CAP_NET_ADMIN)
    except OSError as error:
        return [f"link-local addresses and neighbours can be reached: {error}"]
    return []


def _listen(path: str) -> _socket.socket:
    try:
        os.unlink(path)  # of an earlier life of this container
    except FileNotFoundError:
        pass
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    listener.bind(path)
    os.chmod(path, 0o666)  # the folder decides who gets here
    listener.listen(128)
    listener.setblocking(False)
    return listener


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
        zygote.serve(other, rules)()
        raise SystemExit
    other.close()
    return mine, pid


def _pair() -> tuple[_socket.socket, _socket.socket]:
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    return first, second


def _serve(
    config: dict[str, object],
    control: _socket.socket,
    zygote_pid: int,
    listener: _socket.socket,
) -> None:
    server.Server(config, confine.Rules(config), control, zygote_pid, listener).serve()
    os._exit(0)


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
