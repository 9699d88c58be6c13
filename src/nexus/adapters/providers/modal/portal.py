"""An event loop in a thread of its own: how blocking methods use asynchronous code, always with a deadline.

Modal's blocking calls know no deadline, and each would occupy a thread for as long as it takes. Here one thread
carries any number of runs with their streams, so nobody ever waits for a thread that waits for him.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

GLANCE = 0.2
"""Seconds after which a waiting thread looks up. Python shows a signal to the main thread between two instructions
only: one that comes just before a wait begins would be seen when it ends, and Ctrl-C would seem dead."""
ABANDON_AFTER = 2.0
"""Seconds that a cancelled call gets to end. The SDK can hang while it cleans up; a caller of ours cannot."""


class Portal:
    """Runs coroutines for threads. Thread-safe; must not be used from its own loop, nor in a fork of its process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nexus-modal", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start it; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Wait for it, for `timeout` seconds at most: then it is cancelled, and `TimeoutError` is raised.

        Whatever cuts the waiting short, `KeyboardInterrupt` too, cancels it.
        """

        async def bounded() -> T:
            async with asyncio.timeout(timeout):
                return await work

        future = self.submit(bounded())
        end = time.monotonic() + timeout + ABANDON_AFTER
        try:
            while not future.done() and (left := end - time.monotonic()) > 0:
                wait([future], min(left, GLANCE))
            return future.result(0)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left and end the thread."""

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), ABANDON_AFTER)
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

        try:
            self.submit(cancel_all()).result(2 * ABANDON_AFTER)
        except TimeoutError:
            pass  # something in the SDK does not let itself be cancelled; the thread ends without it
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
