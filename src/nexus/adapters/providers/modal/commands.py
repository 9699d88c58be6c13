"""Commands in a sandbox, for threads: runs with their output passed on as it comes, small scripts, and kills."""

from __future__ import annotations

import asyncio
import math
import queue
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Final, TypeVar

from nexus.adapters.providers.modal import guest
from nexus.adapters.providers.modal.calls import Calls, Work
from nexus.adapters.providers.modal.failures import is_outage, is_refusal, translate
from nexus.adapters.providers.modal.portal import GLANCE
from nexus.adapters.providers.modal.running import (
    KILL_TIMEOUT,
    LINGER,
    Collected,
    Command,
    Ended,
    Interrupted,
    Means,
    NotSent,
    StartFailed,
    Unkillable,
    execute,
)
from nexus.adapters.providers.modal.session import Session
from nexus.domain.errors import ProviderError, ProviderGone, ProviderOutcomeUnknown, ProviderUnavailable
from nexus.domain.provider import ExecutionResult, OutputSink, RunRequest, Stream

T = TypeVar("T")
Events = queue.SimpleQueue[tuple[Stream, bytes] | None]

SECOND_LOOK: Final = 5.0
"""Seconds for finding out more on the way to an error."""


class Commands:
    """Thread-safe. `patience` is how long, in seconds, Modal may be silent where it has no reason to be."""

    def __init__(self, calls: Calls, patience: float) -> None:
        self._calls = calls
        self._patience = patience
        self._second_look = min(SECOND_LOOK, patience)

    # --- runs --------------------------------------------------------------------------------------------------
    def run(self, modal_id: str, request: RunRequest, on_output: OutputSink | None) -> ExecutionResult:
        """As `Provider.run`. `on_output` is called in the calling thread."""
        word = secrets.token_hex(16)
        argv, env = guest.begin(request, word)
        code = request.code or b""
        command = Command(argv, request.timeout, code + request.stdin, prompt=len(code), env=env)
        events: Events = queue.SimpleQueue()
        emit = None if on_output is None else lambda stream, data: events.put((stream, data))
        out, err = Collected("stdout", emit), Collected("stderr", emit)

        async def work(session: Session) -> Ended:
            means = Means(
                kill=lambda: _kill(session, modal_id, request.execution_id, self._patience),
                lives=lambda: _lives(session, modal_id, request.execution_id, self._patience),
            )
            return await _execute(session, modal_id, command, out, err, self._patience, means)

        future = self._calls.submit(work)
        future.add_done_callback(lambda _: events.put(None))
        longest = request.timeout + 4 * self._patience + 2 * KILL_TIMEOUT + LINGER
        deadline = time.monotonic() + longest
        try:
            for stream, data in _until_none(events, deadline):
                if on_output is not None:
                    on_output(stream, data)
            ended = future.result(0)
        except StartFailed as error:
            raise self._not_started(modal_id, request.execution_id, error) from error.__cause__
        except (Interrupted, Unkillable, queue.Empty, CancelledError) as error:
            future.cancel()
            raise self._lost(modal_id, request.execution_id, error) from error.__cause__
        except BaseException as error:
            # The caller's own: an interrupt, or what `on_output` raised.
            try:
                self.kill(modal_id, request.execution_id)
            except ProviderError as failure:
                error.add_note(f"The run {request.execution_id} may still go on: {failure.message}")
            finally:
                future.cancel()
            raise
        if ended.code == guest.REFUSED and bytes(err.kept) == word.encode():
            raise ProviderOutcomeUnknown(f"Execution {request.execution_id} has begun before; it is not run again")
        return ExecutionResult(
            exit_code=ended.code,
            stdout=bytes(out.kept),
            stderr=bytes(err.kept),
            stdout_bytes=out.total,
            stderr_bytes=err.total,
            duration=ended.duration,
            timed_out=ended.timed_out,
            signal=ended.signal,
        )

    def kill(self, modal_id: str, execution_id: str, timeout: float | None = None) -> bool:
        """Nothing of the run lives when this returns. True when it had not even begun, and now never will."""

        async def work(session: Session) -> bool:
            return await _kill(session, modal_id, execution_id, self._patience)

        return self.inside(modal_id, "kill a run", work, timeout or self._patience, changes=True)

    def _not_started(self, modal_id: str, execution_id: str, error: StartFailed) -> Exception:
        """What to say of a run that could not be started: whether it did begin can often be found out."""
        cause = error.__cause__
        assert isinstance(cause, Exception)
        if is_refusal(cause):
            return self._refused(modal_id, cause)
        if is_outage(cause) and not isinstance(error, NotSent):
            try:
                never = self.kill(modal_id, execution_id, self._second_look)
            except ProviderError:
                never = False
            kind = ProviderUnavailable if never else ProviderOutcomeUnknown
            return kind(f"Modal, when asked to start a run: {str(cause).strip() or 'no answer in time'}")
        return translate(cause, "start a run") or cause

    def _lost(self, modal_id: str, execution_id: str, error: Exception) -> ProviderOutcomeUnknown:
        """A run was under way and contact with it was lost: end it if that can be done, and say that it is unknown."""
        cause = error.__cause__
        if isinstance(cause, Exception) and is_refusal(cause) and self._is_gone(modal_id):
            return ProviderOutcomeUnknown("The Modal sandbox ended while the run was under way")
        if not isinstance(error, Unkillable):
            try:
                self.kill(modal_id, execution_id, self._second_look)
            except ProviderError:
                pass  # nothing more can be done; the answer is the same
        why = "its time was up and it could not be killed" if isinstance(error, Unkillable) else str(cause or "")
        return ProviderOutcomeUnknown(f"Modal lost the run {execution_id}: {why or 'no answer in time'}")

    def _is_gone(self, modal_id: str) -> bool:
        """With proof: an outage is a no."""
        try:
            return (
                self._calls.do("look at a sandbox", lambda session: session.look(modal_id), self._second_look) is None
            )
        except ProviderError:
            return False

    # --- what is not a run -------------------------------------------------------------------------------------
    def script(
        self, modal_id: str, doing: str, argv: Sequence[str], payload: bytes = b"", timeout: float = 60.0
    ) -> tuple[int, bytes, bytes]:
        """Run a small script of our own to its end: exit code and both streams. It must bear being repeated."""

        async def work(session: Session) -> tuple[int, bytes, bytes]:
            return await _script(session, modal_id, argv, self._patience, payload, math.ceil(timeout))

        return self.inside(modal_id, doing, work, timeout + 3 * self._patience)

    def inside(self, modal_id: str, doing: str, work: Work[T], timeout: float, *, changes: bool = False) -> T:
        """A step in a sandbox. `ProviderGone` only with proof: a worker that does not know it is none."""
        try:
            return self._calls.do(doing, work, timeout, changes=changes)
        except ProviderError as error:
            if isinstance(error.__cause__, Exception) and is_refusal(error.__cause__):
                raise self._refused(modal_id, error.__cause__) from error.__cause__
            raise

    def _refused(self, modal_id: str, cause: Exception) -> ProviderError:
        if self._is_gone(modal_id):
            return ProviderGone("The Modal sandbox has ended")
        return ProviderUnavailable(f"The Modal sandbox cannot be reached: {cause}")


def _until_none(events: Events, deadline: float) -> Iterator[tuple[Stream, bytes]]:
    """What comes, until None comes; `queue.Empty` when the deadline has passed."""
    while True:
        try:
            event = events.get(timeout=max(0.0, min(GLANCE, deadline - time.monotonic())))
        except queue.Empty:
            if time.monotonic() > deadline:
                raise
            continue
        if event is None:
            return
        yield event


async def _execute(
    session: Session,
    modal_id: str,
    command: Command,
    out: Collected,
    err: Collected,
    patience: float,
    means: Means | None = None,
) -> Ended:
    from modal.exception import NotFoundError

    try:
        async with asyncio.timeout(patience):
            sandbox = await session.handle(modal_id)
    except Exception as error:
        raise NotSent from error
    if sandbox is None:
        raise NotSent from NotFoundError("the sandbox has ended")
    try:
        return await execute(sandbox, command, out, err, patience=patience, means=means)
    except (StartFailed, Interrupted) as error:
        if isinstance(error.__cause__, Exception) and is_refusal(error.__cause__):
            session.forget(modal_id)
        raise


async def _script(
    session: Session, modal_id: str, argv: Sequence[str], patience: float, payload: bytes = b"", seconds: int = 60
) -> tuple[int, bytes, bytes]:
    out, err = Collected("stdout", None), Collected("stderr", None)
    command = Command(argv, seconds, payload, prompt=len(payload))
    try:
        ended = await _execute(session, modal_id, command, out, err, patience)
    except Unkillable:
        raise TimeoutError from None
    except (StartFailed, Interrupted) as error:
        raise (error.__cause__ or error) from None
    return ended.code, bytes(out.kept), bytes(err.kept)


async def _kill(session: Session, modal_id: str, execution_id: str, patience: float) -> bool:
    code, out, err = await _script(session, modal_id, guest.kill(execution_id), patience, seconds=KILL_TIMEOUT)
    if code != 0:
        raise ProviderUnavailable(f"The run could not be killed: {err.decode(errors='replace').strip() or code}")
    return out.strip() == b"never"


async def _lives(session: Session, modal_id: str, execution_id: str, patience: float) -> bool:
    code, _, _ = await _script(session, modal_id, guest.lives(execution_id), patience, seconds=KILL_TIMEOUT)
    return code == 0
