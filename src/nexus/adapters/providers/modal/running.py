"""One command in a sandbox, from its start to its end: streams, deadline, and what can be said of the outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nexus.adapters.providers.modal.failures import is_outage
from nexus.domain.provider import OUTPUT_CAP, Stream

if TYPE_CHECKING:
    import modal

Emit = Callable[[Stream, bytes], None]

BACKSTOP: Final = 15
"""Seconds after its own deadline at which Modal ends a command itself, should nobody else have done so."""
KILL_TIMEOUT: Final = 10
"""Seconds that killing may take."""
LINGER: Final = 1.0
"""Seconds that output is awaited after a command has ended while something that it left behind holds its streams."""
KILLED_LINGER: Final = 5.0
"""The same after a kill: by then nothing should hold them, and what has come is worth keeping in any case."""
ASK_TIMEOUT: Final = 5
"""Seconds for telling a signal from an exit code that looks like one."""
CHUNK: Final = 1 << 20
SIGNALS: Final = range(129, 129 + 64)


class StartFailed(Exception):
    """The command was not started, as far as one can see from here; the cause says why."""


class NotSent(StartFailed):
    """The command was not even asked for."""


class Interrupted(Exception):
    """The command was started, and then contact was lost or its sandbox ended; the cause says how."""


class Unkillable(Exception):
    """Its time is up, and it could not be made sure that nothing of it lives."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be run."""

    argv: Sequence[str]
    seconds: int
    """Its time: it is killed when that is up."""
    payload: bytes = b""
    """Its stdin."""
    prompt: int = 0
    """How many bytes of that it reads at once, whatever else it does: no more than a transfer's time is given them."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Means:
    """How a run is controlled, which takes other commands in the same sandbox."""

    kill: Callable[[], Awaitable[object]]
    """Raises when it cannot be sure that nothing of the run lives."""
    lives: Callable[[], Awaitable[bool]]
    """Whether anything that the run has started is alive."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    signal: int | None
    timed_out: bool
    duration: float


class Collected:
    """One stream of a command: what is within the cap is kept and passed on, what is beyond is counted."""

    def __init__(self, stream: Stream, emit: Emit | None, cap: int = OUTPUT_CAP) -> None:
        self.kept = bytearray()
        self.total = 0
        self._stream = stream
        self._emit = emit
        self._cap = cap

    def take(self, chunk: bytes) -> None:
        self.total += len(chunk)
        part = chunk[: self._cap - len(self.kept)]
        if part:
            self.kept += part
            if self._emit is not None:
                self._emit(self._stream, part)


async def execute(
    sandbox: modal.Sandbox,
    command: Command,
    stdout: Collected,
    stderr: Collected,
    *,
    patience: float,
    means: Means | None = None,
) -> Ended:
    """Run a command. `patience` is how long, in seconds, Modal may be silent where it has no reason to be.

    Raises `StartFailed`, `Interrupted`, `Unkillable`; without `means` every time-out is `Unkillable`.
    """
    asked = time.monotonic()
    try:
        async with asyncio.timeout(patience):
            process = await sandbox.exec.aio(
                *command.argv, env=dict(command.env), timeout=command.seconds + BACKSTOP, text=False
            )
    except Exception as error:
        raise StartFailed from error
    began = time.monotonic()
    waiting = asyncio.ensure_future(process.wait.aio())
    feeding = asyncio.ensure_future(_feed(process.stdin, command, patience))
    readers = [
        asyncio.ensure_future(_read(process.stdout, stdout)),
        asyncio.ensure_future(_read(process.stderr, stderr)),
    ]
    tasks = [waiting, feeding, *readers]
    try:
        timed_out = not await _until_ended(waiting, tasks, began + command.seconds)
        if timed_out:
            await _kill(means)
        # One that was killed ends at once; the bound is for a connection that does not say so.
        async with asyncio.timeout(KILL_TIMEOUT):
            code = await waiting
        ended = time.monotonic()
        if not timed_out and code in (-1, 137) and ended - asked >= command.seconds:
            # Modal's own time-out came first: it shows as one or the other, and ends the command alone.
            timed_out = True
            await _kill(means)
        if timed_out:
            await asyncio.wait(readers, timeout=KILLED_LINGER)
        else:
            await _drain(readers, means, patience)
    except Unkillable:
        raise
    except Exception as error:
        raise Interrupted from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if timed_out:
        return Ended(124, 9, timed_out=True, duration=ended - began)
    signal = code - 128 if code in SIGNALS and await _was_signalled(process) else None
    return Ended(code, signal, timed_out=False, duration=ended - began)


async def _until_ended(waiting: asyncio.Future[int], tasks: Sequence[asyncio.Future[Any]], deadline: float) -> bool:
    """Wait for the command's end; False when its time is up. Raises what breaks the contact with it."""
    pending = set(tasks)
    while not waiting.done():
        left = deadline - time.monotonic()
        done, pending = await asyncio.wait(pending, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        if waiting in done:
            break
        for task in done:
            task.result()
        if not done and left <= 0:
            return False
    return True


async def _kill(means: Means | None) -> None:
    if means is None:
        raise Unkillable
    try:
        await means.kill()
    except Exception as error:
        raise Unkillable from error


async def _read(reader: Any, into: Collected) -> None:
    async for chunk in reader:
        into.take(chunk)


async def _feed(writer: Any, command: Command, patience: float) -> None:
    """Write stdin and close it. A program that does not want to read is no error; losing contact is."""
    payload, prompt = command.payload, command.prompt
    ends = [*range(CHUNK, prompt, CHUNK), prompt, *range(prompt + CHUNK, len(payload), CHUNK), len(payload)]
    at = 0
    try:
        for end in dict.fromkeys(end for end in ends if end or not payload):
            writer.write(payload[at:end])
            if end == len(payload):
                writer.write_eof()
            async with asyncio.timeout(patience if end <= prompt else None):
                await writer.drain.aio()
            at = end
    except Exception as error:
        if is_outage(error):
            raise


async def _drain(readers: Sequence[asyncio.Future[None]], means: Means | None, patience: float) -> None:
    """Wait for the rest of the output: all of it, unless a process that was left behind keeps a stream open."""
    done, pending = await asyncio.wait(readers, timeout=LINGER)
    if pending and (means is None or not await means.lives()):
        done, pending = await asyncio.wait(readers, timeout=patience)
        if pending:
            raise TimeoutError("the end of the output did not come")
    for reader in done:
        reader.result()


async def _was_signalled(process: Any) -> bool:
    """Whether a signal ended it. The SDK folds signal n into exit code 128 + n; the answer beneath it does not.

    That answer is not part of the SDK's public face: where it cannot be had, such a code is taken for a signal, as a
    shell would take it.
    """
    try:
        from modal._utils.async_utils import synchronizer

        async with asyncio.timeout(ASK_TIMEOUT):
            status: str | None = await synchronizer.create_blocking(_exit_status).aio(process)
    except Exception:  # noqa: BLE001 - whatever goes wrong here, the run has ended and its result is known
        return True
    return status == "signal"


async def _exit_status(process: Any) -> str | None:
    answer = await process._command_router_client.exec_poll(process._task_id, process._process_id)
    status: str | None = answer.WhichOneof("exit_status")
    return status
