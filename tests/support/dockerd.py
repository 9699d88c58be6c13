"""A private Docker engine for tests and measurements: shared by everyone who runs them, gone with the last user.

The engine lives in network, mount and PID namespaces of its own, so that it cannot touch a host's docker0, mounts
or processes, and dies whole with its first process. One engine serves all pytest workers and all concurrent runs
of a user: each holds a shared lock, and the engine's keeper ends it when it gets the lock exclusively, which the
kernel grants even when the users were killed. Images stay in the cache folder, so only the first start is slow.

As a command::

    python -m tests.support.dockerd run -- CMD…    CMD with DOCKER_HOST and NEXUS_DOCKER_IMAGE set

Needs root and Debian's docker.io, iptables and iproute2.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

INSTALL_HINT = "apt-get install -y --no-install-recommends docker.io iptables iproute2 python3-pandas nodejs"
START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
UNSHARE = ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL"]
UNSHARE.append("--mount-proc")


class EngineFailed(RuntimeError):
    """The private engine cannot be started; the message says what is missing."""


def cache_folder() -> Path:
    """Where engines keep their images between runs: per user, outside every checkout."""
    base = os.environ.get("NEXUS_TEST_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "nexus-sandbox-tests" / "docker"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@dataclass(frozen=True)
class Engine:
    """A running engine under `root`."""

    root: Path

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def cgroup(self) -> str:
        return "nexus-test-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:12]

    def control(self, *command: str) -> str:
        """Ask the first process of the engine's namespaces to `start [args]`, `kill SIGNAL` or `ping` the daemon."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(START_SECONDS)
            link.connect(str(self.root / "control.sock"))
            link.sendall(json.dumps(command).encode() + b"\n")
            answer = link.makefile("rb").readline()
        value = json.loads(answer or b'"the engine went away"')
        if value != "ok":
            raise EngineFailed(value)
        return str(value)

    def stop_daemon(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End dockerd alone and wait until it is gone; containers may live on (see --live-restore)."""
        self.control("kill", sig.name)

    def start_daemon(self, *arguments: str) -> None:
        """Start dockerd again and wait until it answers."""
        self.control("start", *arguments)
        self.wait_ready()

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link, suppress(OSError):
            link.settimeout(2)
            link.connect(str(self.socket))
            link.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in link.recv(64)
        return False

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline:
                log = (self.root / "dockerd.log").read_text(errors="replace")
                raise EngineFailed(f"dockerd does not answer after {seconds:g} s:\n" + log[-3000:])
            time.sleep(0.02)


@contextmanager
def shared_engine() -> Iterator[Engine]:
    """The engine shared by all users of the cache folder; started if need be."""
    root = cache_folder() / "engine"
    root.mkdir(exist_ok=True)
    with (root / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits only while an engine without users is going down
        with (root / "start.lock").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            engine = Engine(root)
            if not engine.answers():
                _check_tools()
                subprocess.run([sys.executable, "-I", __file__, "detach", str(root)], check=True)
                engine.wait_ready()
                _remove_leftovers(engine)
        yield engine


def _remove_leftovers(engine: Engine) -> None:
    """A machine that was switched off leaves records of containers behind, and the names that they had."""
    docker = ["docker", "--host", engine.host]
    left = subprocess.run([*docker, "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()
    if left:
        subprocess.run([*docker, "rm", "-f", "-v", *left], capture_output=True, check=True)


@contextmanager
def private_engine(*arguments: str) -> Iterator[Engine]:
    """An engine for one test that restarts or breaks it; empty, and removed with its data afterwards."""
    with tempfile.TemporaryDirectory(prefix="nexus-engine-") as folder:
        root = Path(folder)
        _check_tools()
        with (root / "users.lock").open("a") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            keeper = _spawn_keeper(root, *arguments)
            try:
                Engine(root).wait_ready()
                yield Engine(root)
            finally:
                fcntl.flock(users, fcntl.LOCK_UN)
                keeper.wait(timeout=START_SECONDS)


def _check_tools() -> None:
    missing = [name for name in ("dockerd", "containerd", "iptables", "ip", "unshare") if not shutil.which(name)]
    if missing:
        raise EngineFailed(f"{', '.join(missing)} not found; install with: {INSTALL_HINT}")
    if os.geteuid() != 0:
        raise EngineFailed("a private Docker engine needs root (it makes namespaces and mounts): run as root")


def _spawn_keeper(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (root / "keeper.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-I", __file__, "keep", str(root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


# --- the keeper: one process outside the namespaces, ends the engine when nobody uses it -----------------------


def keep(root: Path, arguments: list[str]) -> None:
    """Hold an engine under `root` until no user is left, then take it down with all that it made."""
    engine = Engine(root)
    _remove_cgroups(engine.cgroup)
    for stale in ("docker.sock", "control.sock", "dockerd.pid"):
        (root / stale).unlink(missing_ok=True)
    shutil.rmtree(root / "exec", ignore_errors=True)
    inside = subprocess.Popen(
        [*UNSHARE, sys.executable, "-I", __file__, "init", str(root), *arguments],
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )
    with (root / "users.lock").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        with suppress(OSError, EngineFailed):
            engine.control("down")
        inside.kill()
        inside.wait()
        _remove_cgroups(engine.cgroup)
        for stale in ("docker.sock", "control.sock", "dockerd.pid"):
            (root / stale).unlink(missing_ok=True)
        shutil.rmtree(root / "exec", ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _remove_cgroups(name: str) -> None:
    """The kernel keeps the folders of dead groups; each is removed bottom up."""
    top = Path("/sys/fs/cgroup")
    for parent in [top / name, *top.glob(f"*/{name}")]:
        if not parent.is_dir():
            continue
        for folder, _, _ in os.walk(parent, topdown=False):
            deadline = time.monotonic() + 5
            while True:
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.02)  # processes that were killed a moment ago still count
                else:
                    break


# --- the first process inside the namespaces: starts, ends and restarts dockerd on request ---------------------


class Init:
    """PID 1 of the engine: everything in the namespaces ends with it."""

    def __init__(self, root: Path, arguments: list[str]) -> None:
        self.root = root
        self.arguments = arguments
        self.daemon: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for folder in ("/run/containerd", "/run/docker", "/etc/docker"):  # fixed places: each engine gets its own
            Path(folder).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)

    def start(self, *arguments: str) -> None:
        engine = Engine(self.root)
        (self.root / "dockerd.pid").unlink(missing_ok=True)
        with (self.root / "dockerd.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.root / 'data'}",
                    f"--exec-root={self.root / 'exec'}",
                    f"--pidfile={self.root / 'dockerd.pid'}",
                    f"--host={engine.host}",
                    f"--cgroup-parent=/{engine.cgroup}",
                    "--log-level=warn",
                    *self.arguments,
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str, seconds: float = 30.0) -> None:
        if self.daemon is not None:
            self.daemon.send_signal(signal.Signals[name])
            try:
                self.daemon.wait(seconds)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None

    def handle(self, command: list[str]) -> str:
        match command:
            case ["start", *arguments]:
                self.start(*arguments)
            case ["kill", name]:
                self.kill(name)
            case ["down"]:
                self.end_containers()
                self.kill("SIGTERM", 5)
            case _:
                return f"unknown command {command}"
        return "ok"

    def end_containers(self) -> None:
        """Without this dockerd gives each container ten seconds to end by itself."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if b"containerd-shim" in line and int(process.name) != 1:
                    os.kill(int(process.name), signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if Engine(self.root).cgroup in (process / "cgroup").read_text():
                    os.kill(int(process.name), signal.SIGKILL)

    def reap(self) -> None:
        """Orphans end up here; dockerd's own status is left to Popen."""
        while True:
            try:
                ready = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ready is None or (self.daemon is not None and ready.si_pid == self.daemon.pid):
                return
            with suppress(ChildProcessError):
                os.waitpid(ready.si_pid, 0)

    def serve(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.root / "control.sock"))
            listener.listen()
            listener.settimeout(0.5)
            self.start()
            while True:
                self.reap()
                try:
                    link, _ = listener.accept()
                except TimeoutError:
                    continue
                with link, suppress(OSError):
                    link.settimeout(5)
                    command = json.loads(link.makefile("rb").readline())
                    link.sendall(json.dumps(self.handle(command)).encode() + b"\n")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["keep", root, *rest]:
            keep(Path(root), rest)
        case ["detach", root]:
            _spawn_keeper(Path(root))
            os._exit(0)  # whoever asked must not be its parent: it outlives them
        case ["init", root, *rest]:
            init = Init(Path(root), rest)
            init.prepare()
            init.serve()
        case ["run", "--", *command] if command:
            from tests.support.dockerd_images import default_image

            with shared_engine() as engine:
                environment = os.environ | {"DOCKER_HOST": engine.host, "NEXUS_DOCKER_IMAGE": default_image(engine)}
                return subprocess.run(command, env=environment, check=False).returncode
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
