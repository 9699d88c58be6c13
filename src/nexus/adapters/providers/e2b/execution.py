"""One run: start the guest, listen to it, and find it again when the connection breaks."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from nexus.adapters.providers.e2b import guest
from nexus.adapters.providers.e2b.faults import arrived, translate
from nexus.adapters.providers.e2b.guest import End, Frames, Garbled, Order, Output, Word
from nexus.domain.errors import (
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import OUTPUT_CAP, ExecutionResult, OutputSink, RunRequest, Stream

if TYPE_CHECKING:
    from e2b import Sandbox

_SLAY: Final = 7.0
"""Seconds in which the guest has killed everything, or given up (which it does after five)."""

_OPENING: Final = 5.0
"""Seconds to open a stream, for the impatient too, but no more than thrice their patience: the SDK tries several times
to connect."""

_GLANCE: Final = 0.2
"""Seconds after which a waiting thread looks up. Python shows a signal to the main thread between two instructions
only: one that comes just before a wait begins would be seen when it ends, and Ctrl-C would seem dead."""

_OPENED: Final = ""
"""What the listener is told when the stream is open."""

_SIGKILL: Final = 9

WhySilent = Callable[[], ProviderGone | ProviderNotRunning | None]


class Broken(Exception):
    """A stream of the guest stopped before the run's end; `__cause__` says why, where that is known."""


class Refused(Exception):
    """The run was never begun and never will be, for this error's reason."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error)
        self.error = error


class Execution:
    """Carries one request through. Used once, by one thread."""

    def __init__(
        self,
        sandbox: Sandbox,
        request: RunRequest,
        order: Order,
        on_output: OutputSink | None,
        why_silent: WhySilent,
        patience: float,
    ) -> None:
        """`patience` is how many seconds the guest may be silent beyond the time-out, and how long to look for it."""
        self._sandbox = sandbox
        self._request = request
        self._order = order
        self._on_output = on_output
        self._why_silent = why_silent
        self._patience = patience
        self._frames = Frames(order.token)
        self._opened = False
        self._begun = False
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._start = time.monotonic()

    def run(self) -> ExecutionResult:
        try:
            end = self._to_the_end()
        except Refused as refused:
            raise refused.error from refused.error.__cause__
        except ProviderOutcomeUnknown:
            raise  # the sandbox is gone, or out of reach
        except BaseException:
            # The caller leaves, and nobody listens any more: what was started must not go on.
            cancel(self._sandbox, self._order.token)
            raise
        if end.left:
            cancel(self._sandbox, self._order.token)
        return self._result(end)

    def _to_the_end(self) -> End:
        for path, data in self._order.uploads:
            try:
                self._sandbox.files.write(path, data, use_octet_stream=True)
            except Exception as error:
                raise Refused(self._explained(translate(error, "upload code", changes=False))) from error
        try:
            return self._listen(self._order.line, self._request.env)
        except Broken as broken:
            return self._settle(broken)

    # --- listening -------------------------------------------------------------------------------------------------
    def _listen(self, line: str, env: Mapping[str, str]) -> End:
        """Follow one stream of the guest to the run's end. Raises `Broken` and `Refused`."""
        self._frames.restart()
        pieces: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        # In a thread of its own: the SDK waits without noticing Ctrl-C, and without a deadline of ours.
        threading.Thread(target=self._pull, args=(line, env, pieces), name="nexus-e2b-run", daemon=True).start()
        deadline = time.monotonic() + max(self._patience, min(_OPENING, 3 * self._patience))
        while True:
            left = deadline - time.monotonic()
            try:
                piece = pieces.get(timeout=max(0.0, min(_GLANCE, left)))
            except queue.Empty:
                if left > _GLANCE:
                    continue
                raise Broken("the sandbox is silent") from None
            if piece == _OPENED:
                self._opened = True
                deadline = time.monotonic() + self._request.timeout + self._patience
                continue
            if isinstance(piece, Exception):
                raise piece if isinstance(piece, Refused) else Broken from piece
            if (end := self._hear(piece)) is not None:
                return end

    def _pull(self, line: str, env: Mapping[str, str], pieces: queue.SimpleQueue[str | Exception]) -> None:
        """Hand on what the SDK says, and at last the exception that ended it."""
        from e2b import CommandExitException

        complaint = ""
        try:
            handle = self._sandbox.commands.run(
                line,
                background=True,
                envs=dict(env),
                timeout=self._request.timeout + 2 * self._patience + _SLAY,
                retain_output=False,
            )
            pieces.put(_OPENED)
            for out, err, _ in handle:
                if out:
                    pieces.put(out)
                complaint = (complaint + (err or ""))[-500:]
            handle.wait()
        except CommandExitException as ended:
            if not self._begun and ended.exit_code == 127 and not self._frames.headed:
                reason = ProviderUnsupported(
                    "The sandbox's template has no perl, which keeps the time of every run",
                    hint="Use a template based on Debian or Ubuntu, as E2B's own are.",
                )
                pieces.put(Refused(reason))
            elif not self._begun and complaint.startswith("nexus: "):
                pieces.put(Refused(ProviderError(f"The sandbox cannot begin a run: {complaint.strip()}")))
            else:
                pieces.put(ended)
        except Exception as error:  # noqa: BLE001 - told apart by the thread that waits for it
            pieces.put(error)
        else:
            pieces.put(EOFError("the command ended"))

    def _hear(self, piece: str) -> End | None:
        try:
            for frame in self._frames.feed(piece):
                match frame:
                    case Output(stream, data):
                        self._take(stream, data)
                    case End():
                        return frame
                    case Word("begun"):
                        self._begun = True
                    case Word("never"):
                        raise Refused(ProviderUnavailable("E2B: the run could not begin; nothing was done"))
                    case Word("used"):
                        again = f"Execution {self._request.execution_id} has run already"
                        raise Refused(ProviderInvalidRequest(again, execution_id=self._request.execution_id))
                    case Word("killed") if self._begun:
                        # The program killed its own keeper. It has the right to; it ends as other suicides do.
                        cancel(self._sandbox, self._order.token)
                        return End(_SIGKILL, False, False, 0, 0, time.monotonic() - self._start, 0)
                    case Word():
                        cancel(self._sandbox, self._order.token)
                        raise self._unknown("its keeper is dead")
        except Garbled as garbled:
            cancel(self._sandbox, self._order.token)
            raise self._unknown(f"its keeper speaks nonsense: {garbled}") from garbled
        return None

    def _take(self, stream: Stream, data: bytes) -> None:
        kept = self._kept[stream]
        data = data[: OUTPUT_CAP - len(kept)]  # the guest keeps the cap, but a program could speak in its place
        if data:
            kept += data
            if self._on_output is not None:
                self._on_output(stream, data)

    # --- when the connection broke ---------------------------------------------------------------------------------
    def _settle(self, broken: Broken) -> End:
        """Find out what became of the run, and listen on where the stream broke.

        The run's id decides: if it has begun, its output is taken up again; if it has not, the id is used up here and
        now, so that a request that is still on its way can do nothing.
        """
        cause = broken.__cause__
        if not self._opened and isinstance(cause, Exception) and not arrived(cause):
            raise Refused(self._explained(translate(cause, "start a run", changes=False))) from cause
        until = time.monotonic() + self._patience
        pause = 0.02
        while True:
            try:
                if (proof := self._why_silent()) is not None:
                    raise self._unknown(proof.message) from cause
                follow = guest.command("follow", self._order.token, str(self._frames.offset))
                return self._listen(follow, {})
            except Refused as refused:
                if isinstance(cause, Exception):
                    refused.error.__cause__ = cause
                raise
            except (Broken, ProviderError) as error:
                if isinstance(error, ProviderOutcomeUnknown) or time.monotonic() + pause > until:
                    last = error.__cause__ if isinstance(error, Broken) else error
                    raise self._unknown(f"the connection broke and could not be restored: {last}") from (cause or error)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _explained(self, error: ProviderError) -> ProviderError:
        """From the data plane a paused sandbox looks like a dead one: the control plane knows which it is."""
        if not isinstance(error, ProviderNotRunning | ProviderGone):
            return error
        return self._why_silent() or ProviderUnavailable("E2B: the sandbox does not answer; nothing was done")

    def _unknown(self, why: str) -> ProviderOutcomeUnknown:
        message = f"E2B: nobody knows how the run ended: {why}"
        return ProviderOutcomeUnknown(message, execution_id=self._request.execution_id)

    # --- the end ---------------------------------------------------------------------------------------------------
    def _result(self, end: End) -> ExecutionResult:
        stdout, stderr = bytes(self._kept["stdout"]), bytes(self._kept["stderr"])
        signal = _SIGKILL if end.cancelled else end.status & 127
        if end.timed_out:
            signal = 0
        code = 124 if end.timed_out else 128 + signal if signal else end.status >> 8
        return ExecutionResult(
            exit_code=code,
            stdout=stdout,
            stderr=stderr,
            stdout_bytes=max(end.stdout_bytes, len(stdout)),
            stderr_bytes=max(end.stderr_bytes, len(stderr)),
            duration=end.duration,
            timed_out=end.timed_out,
            signal=signal or None,
        )


def cancel(sandbox: Sandbox, token: str, *, strict: bool = False) -> None:
    """Kill everything that a run started. `strict` raises what stands in the way; else it is a best effort."""
    try:
        if _left(sandbox, token, None):
            # What became another user's, by sudo, only root can end.
            _left(sandbox, token, "root")
    except Exception:
        if strict:
            raise


def _left(sandbox: Sandbox, token: str, user: str | None) -> int:
    frames = Frames(token)
    left = 0

    def hear(text: str) -> None:
        nonlocal left
        for frame in frames.feed(text):
            if isinstance(frame, Word) and frame.word == "cancelled":
                left = frame.left

    line = guest.command("cancel", token)
    sandbox.commands.run(line, user=user, on_stdout=hear, timeout=_SLAY, retain_output=False)
    return left
