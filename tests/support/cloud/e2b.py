"""The loopback E2B: one server that the unmodified `e2b` SDK takes for E2B, running real processes.

    with E2BCloud() as cloud:
        ...                                   # with cloud.environment() in os.environ
        cloud.plan.set(Fault.UNAVAILABLE, "create")

Operations of its fault plan: `create list info kill timeout pause connect` of the control plane, and `start
list-processes signal input close-stdin read write health` of envd. `python -m tests.support.cloud.e2b` serves one until
its standard input ends, for programs that must not share a process with it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cloud.common import Fault, FaultPlan
from tests.support.cloud.e2b_control import API_KEY, ControlPlane, Request
from tests.support.cloud.e2b_envd import Envd, user_of
from tests.support.cloud.e2b_http import Answer, Connection, Dropped, refusal
from tests.support.cloud.e2b_world import CloudSandbox, World

_REFUSALS = {
    Fault.THROTTLED_ONCE: (429, "Rate limit exceeded", "resource_exhausted"),
    Fault.THROTTLED: (429, "Rate limit exceeded", "resource_exhausted"),
    Fault.UNAVAILABLE: (503, "Service unavailable", "unavailable"),
    Fault.INTERNAL: (500, "Internal server error", "internal"),
    Fault.UNAUTHENTICATED: (401, "Invalid API key", "unauthenticated"),
    Fault.FORBIDDEN: (403, "Team is blocked", "permission_denied"),
}
_LONGEST = 60.0
"""Seconds after which even a slow answer comes, so that no test hangs for ever."""

_DATA_PLANE = {
    ("POST", "/process.Process/Start"): ("start", Envd.start),
    ("POST", "/process.Process/List"): ("list-processes", Envd.list),
    ("POST", "/process.Process/SendSignal"): ("signal", Envd.send_signal),
    ("POST", "/process.Process/SendInput"): ("input", Envd.send_input),
    ("POST", "/process.Process/CloseStdin"): ("close-stdin", Envd.close_stdin),
    ("GET", "/files"): ("read", Envd.read),
    ("POST", "/files"): ("write", Envd.write),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, cloud: E2BCloud, port: int) -> None:
        self.cloud = cloud
        self.connections: set[_Connection] = set()
        super().__init__(("127.0.0.1", port), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError) and "closed file" not in str(error):  # a client that left is no error
            self.cloud.errors.append(repr(error))


class _Connection(Connection):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self)

    def finish(self) -> None:
        self.server.connections.discard(self)
        super().finish()

    def route(self) -> None:
        cloud = self.server.cloud
        with cloud.working():
            self._route(cloud)

    def _route(self, cloud: E2BCloud) -> None:
        if sandbox_id := self.headers.get("E2b-Sandbox-Id"):
            cloud.data_plane(self, sandbox_id)
        else:
            cloud.control_plane(self)


class E2BCloud:
    """An E2B of one's own, in threads. Safe to use from any other thread."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self.requests: Counter[str] = Counter()
        """How often each operation was asked for."""
        self.users: list[str] = []
        """As whom commands were started, in order."""
        self.errors: list[str] = []
        """What went wrong in the server itself: must stay empty."""
        self._folder = Path(tempfile.mkdtemp(prefix="loopback-e2b-"))
        self.world = World(self._folder)
        self._control = ControlPlane(self.world)
        self._server: _Server | None = None
        self._place: socket.socket | None = None
        self._stopped = threading.Event()
        self._idle = threading.Condition()
        self._at_work = 0
        self._reaper = threading.Thread(target=self._reap, name="loopback-e2b-reaper", daemon=True)
        self.port = 0

    def __enter__(self) -> E2BCloud:
        self._reaper.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what a test does ------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        if self._place is not None:
            self._place.close()
            self._place = None
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="loopback-e2b", daemon=True).start()

    def stop(self) -> None:
        """No server any more; sandboxes live on until `start` or `close`."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            # Bound but not listening: connections are refused, and nobody else is given the port meanwhile.
            self._place = socket.socket()
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._place.bind(("127.0.0.1", self.port))
            for connection in list(server.connections):
                connection.reset()

    def close(self) -> None:
        self.plan.clear()
        self._stopped.set()
        self.stop()
        if self._place is not None:
            self._place.close()
        self.world.clear()
        self._reaper.join(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def serving(self) -> bool:
        return self._server is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What leads the SDK here, and nowhere else."""
        return {
            "E2B_API_KEY": API_KEY,
            "E2B_API_URL": self.url,
            "E2B_SANDBOX_URL": self.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    @property
    def connections(self) -> int:
        """How many connections clients hold open."""
        return len(self._server.connections) if self._server else 0

    def vanish(self, sandbox_id: str) -> None:
        """Delete it behind everyone's back."""
        self.world.kill(sandbox_id)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        with self._idle:
            self._at_work += 1
        try:
            yield
        finally:
            with self._idle:
                self._at_work -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout: float = 30.0) -> None:
        """Until no request is being worked on: what was held back has taken effect, and no command is followed."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._at_work, timeout):
                raise TimeoutError("a request does not end")

    def restore(self) -> None:
        """As it was at first: serving, no faults, no sandboxes, no keys."""
        self.plan.clear()
        self.plan.hits.clear()
        if self._server is None:
            self.start()
        self.world.clear()

    def sandboxes(self) -> list[CloudSandbox]:
        self.world.expire()
        with self.world.lock:
            return list(self.world.sandboxes.values())

    # --- requests --------------------------------------------------------------------------------------------------
    def _strike(self, operation: str, *, connect: bool = False) -> None:
        fault = self.plan.take(operation, (*_REFUSALS, Fault.SLOW))
        if fault is Fault.SLOW:
            self.plan.wait_cleared(_LONGEST)
        elif fault is not None:
            status, message, code = _REFUSALS[fault]
            raise Answer(status, {"code": code if connect else status, "message": message})

    def control_plane(self, connection: Connection) -> None:
        operation, sandbox_id = self._control.operation(connection.command, connection.location)
        self.requests[operation] += 1
        body = connection.json()
        self._strike(operation)
        if connection.headers.get("X-API-KEY") != API_KEY:
            raise refusal(401, "Invalid API key")
        request = Request(connection.query, body, connection.headers.get("Idempotency-Key"), sandbox_id)
        answer = self._control.calls[operation](request)
        if self.plan.take(operation, (Fault.ANSWER_LOST,)):
            raise Dropped
        raise answer

    def data_plane(self, connection: Connection, sandbox_id: str) -> None:
        sandbox = self.world.get(sandbox_id)
        if sandbox is not None and sandbox.unreachable:
            raise refusal(502, "The sandbox is running but port is not open")
        if sandbox is None or sandbox.paused:
            raise refusal(502, "The sandbox was not found")
        if connection.location == "/health":
            self.requests["health"] += 1
            self._strike("health")
            raise Answer(204)
        operation, serve = _DATA_PLANE.get((connection.command, connection.location), ("", None))
        if serve is None:
            raise refusal(404, f"no such route: {connection.location}")
        self.requests[operation] += 1
        self._strike(operation, connect=connection.location.startswith("/process"))
        if connection.headers.get("X-Access-Token") != sandbox.token:
            raise refusal(401, "Invalid access token")
        if operation == "start":
            self.users.append(user_of(connection))
        if operation == "read" and self.plan.take("read", (Fault.ANSWER_LOST,)):
            raise Dropped
        envd = Envd(connection, sandbox, self.world.kill, self._take)
        try:
            serve(envd)
        except Answer as answer:
            if answer.status == 200 and self.plan.take(operation, (Fault.ANSWER_LOST,)):
                raise Dropped from None
            raise

    def _take(self, operation: str, among: Iterable[Fault]) -> Fault | None:
        return self.plan.take(operation, among)

    def _reap(self) -> None:
        while not self._stopped.wait(0.05):
            self.world.expire()


def main() -> None:
    with E2BCloud() as cloud:
        print(json.dumps(cloud.environment()), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
