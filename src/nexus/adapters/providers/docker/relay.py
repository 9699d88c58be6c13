"""A byte stream to a container's agent through the engine, for whoever cannot reach the agent's socket itself."""

from __future__ import annotations

import contextlib
import queue
import threading

from nexus.adapters.agent.bundle import relay_command
from nexus.adapters.providers.docker.container import AGENT_FOLDER, SOCKET
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.exec_stream import ExecStream


class Relay:
    """A byte stream to the agent's socket through a process beside it (`docker exec`): works on every engine."""

    def __init__(self, engine: Engine, container_id: str) -> None:
        self._exec = ExecStream(
            engine,
            container_id,
            relay_command(f"{AGENT_FOLDER}/{SOCKET}"),
            user="0:0",
            doing="reach the agent in the container",
        )
        self._arrived: queue.Queue[bytes] = queue.Queue(maxsize=64)
        self._closed = threading.Event()
        threading.Thread(target=self._listen, name="nexus-docker-relay", daemon=True).start()

    def _listen(self) -> None:
        for stream, chunk in self._exec.output():
            if stream == "stdout" and not self._pass_on(chunk):
                return
        self._pass_on(b"")

    def _pass_on(self, chunk: bytes) -> bool:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._arrived.put(chunk, timeout=0.5)
                return True
        return False

    def send(self, data: bytes, timeout: float) -> None:
        # What the engine's stream does not take in time is cut off: closing it wakes the thread that sends.
        overdue = threading.Timer(timeout, self.close)
        overdue.start()
        try:
            self._exec.send(data)
        finally:
            overdue.cancel()

    def receive(self, timeout: float | None) -> bytes:
        if self._closed.is_set():
            raise OSError("closed")
        try:
            return self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def close(self) -> None:
        self._closed.set()
        self._exec.close()
        with contextlib.suppress(queue.Full):
            self._arrived.put_nowait(b"")  # whoever waits hears of it
