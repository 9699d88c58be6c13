"""The loopback Modal: one server that the unmodified `modal` SDK takes for Modal, running real processes.

    with ModalCloud() as cloud:
        ...                                   # with cloud.environment() in os.environ
        cloud.plan.set(Fault.UNAVAILABLE, "SandboxCreateV2")

Operations of its fault plan are the names of Modal's calls. `python -m tests.support.cloud.modal` serves one until its
standard input ends, for programs that must not share a process with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from grpclib.protocol import H2Protocol
from grpclib.server import Server
from modal._utils.grpc_utils import custom_detail_codec

from tests.support.cloud.common import FaultPlan
from tests.support.cloud.modal_control import ControlPlane
from tests.support.cloud.modal_router import CommandRouter
from tests.support.cloud.modal_service import TOKEN_ID, TOKEN_SECRET, Service
from tests.support.cloud.modal_world import GenericResult, SandboxRecord, World

T = TypeVar("T")


class _Server(Server):
    """A server that knows its connections, so that it can drop them all."""

    def __init__(self, services: list[Service]) -> None:
        super().__init__(services, status_details_codec=custom_detail_codec)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.add(protocol)
        return protocol

    def transports(self) -> list[asyncio.Transport]:
        every = (getattr(protocol.connection, "_transport", None) for protocol in self._protocols)
        return [transport for transport in every if transport is not None and not transport.is_closing()]


class ModalCloud:
    """A Modal of one's own, in a thread. Safe to use from any other thread."""

    def __init__(self) -> None:
        self.plan = FaultPlan()
        self._folder = Path(tempfile.mkdtemp(prefix="loopback-modal-"))
        self.world = World(self._folder)
        self.control = ControlPlane(self.plan, self.world)
        self.router = CommandRouter(self.plan, self.world)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: _Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback-modal", daemon=True)

    def __enter__(self) -> ModalCloud:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, what: Callable[[], T]) -> T:
        async def run() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def start(self) -> None:
        """Listen, on the same port as before when there was one. Fine when it listens already."""

        async def listen() -> None:
            if self._server is not None:
                return
            self._server = _Server([self.control, self.router])
            # asyncio turns Nagle's algorithm off only for sockets that name their protocol: 40 ms an answer otherwise.
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", self.port))
            await self._server.start(sock=sock)
            self.port = sock.getsockname()[1]
            self.control.url = f"http://127.0.0.1:{self.port}"

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)

    def stop(self) -> None:
        """Close every socket: there is no server any more. What runs in the sandboxes goes on."""

        async def close() -> None:
            server, self._server = self._server, None
            if server is not None:
                for transport in server.transports():
                    transport.abort()
                server.close()
                await server.wait_closed()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(30)

    def close(self) -> None:
        """End everything: sandboxes, processes, files, sockets, the thread."""
        self.plan.clear()
        self._do(self.world.close)
        self.stop()

        async def rest() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(rest(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to take this for Modal."""
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self.port}",
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_CONFIG_PATH": "/dev/null",
            "MODAL_DISABLE_API_PROXY": "1",
        }

    @property
    def calls(self) -> Counter[str]:
        """How often each call arrived, retries included."""
        return self.control.calls + self.router.calls

    def running(self) -> list[SandboxRecord]:
        """The sandboxes that run, oldest first."""
        return self._do(lambda: [record for record in self.world.sandboxes.values() if record.running])

    def record(self, sandbox_id: str) -> SandboxRecord:
        return self._do(lambda: self.world.get(sandbox_id))

    def end(self, sandbox_id: str) -> None:
        """End a sandbox behind the caller's back; Modal still knows that it was there."""
        self._do(lambda: self.world.finish(self.world.get(sandbox_id), GenericResult.GENERIC_STATUS_TERMINATED))

    def vanish(self, sandbox_id: str) -> None:
        """The same, and nobody has ever heard of it."""
        self.end(sandbox_id)
        self._do(lambda: self.world.sandboxes.pop(sandbox_id))

    def forget_image(self, image_id: str) -> None:
        """Nobody has ever heard of this image."""
        self._do(lambda: self.world.images.pop(image_id))

    def clear(self) -> None:
        """End every sandbox and forget that it was there."""
        self._do(self.world.close)
        self._do(self.world.sandboxes.clear)

    def connections(self) -> int:
        """Connections that are open to this server."""

        return self._do(lambda: 0 if self._server is None else len(self._server.transports()))


def main() -> None:
    with ModalCloud() as cloud:
        sys.stdout.write(json.dumps(cloud.environment()) + "\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()


if __name__ == "__main__":
    main()
