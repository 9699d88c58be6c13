"""One run under way in a container without the agent."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

from nexus.adapters.providers.docker.exec_stream import Ending, ExecStream
from nexus.domain.errors import ProviderError, ProviderOutcomeUnknown, ProviderUnavailable, ProviderUnsupported
from nexus.domain.provider import OUTPUT_CAP, ExecutionResult, OutputSink, RunRequest, Stream

GRACE = 5.0
"""Seconds that ending a run may take; after that the whole container goes."""

NOT_INSTALLED = 98
"""Exit code of `shell/run.sh` in an image without the interpreter."""


class BareRun:
    """One run under way."""

    def __init__(
        self,
        request: RunRequest,
        keeper: ExecStream,
        said: Iterator[str],
        program: ExecStream,
        oom_before: int,
        on_output: OutputSink | None,
        last_resort: Callable[[], None],
    ) -> None:
        self._request = request
        self._keeper = keeper
        self._said = said
        self._program = program
        self._oom_before = oom_before
        self._on_output = on_output
        self._last_resort = last_resort
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._total: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        self._incoming: queue.Queue[tuple[Stream, bytes] | None] = queue.Queue(maxsize=64)
        self._closed = False
        self._timed_out = False
        self._ended = False
        self._given_up = threading.Event()

    def carry_out(self, code: bytes) -> ExecutionResult:
        self._keeper.send(b"begin\n")
        answer = next(self._said, "")
        if answer == "cancelled":
            raise ProviderOutcomeUnknown("The run was cancelled before it began")
        if answer != "go":
            raise ProviderOutcomeUnknown("The container went away at the start of the run")
        started = time.monotonic()
        threading.Thread(target=self._listen, name="nexus-docker-output", daemon=True).start()
        try:
            with contextlib.suppress(OSError):  # it may end before it has read everything
                self._program.send(code + self._request.stdin)
                self._program.finish_input()
            self._watch(started + self._request.timeout)
            result = self._finish(started)
        except BaseException:
            if not self._ended:
                with contextlib.suppress(ProviderError):
                    self._end()
            raise
        finally:
            self._given_up.set()
        return result

    def _listen(self) -> None:
        for item in self._program.output():
            if not self._pass_on(item):
                return
        self._pass_on(None)

    def _pass_on(self, item: tuple[Stream, bytes] | None) -> bool:
        while not self._given_up.is_set():
            with contextlib.suppress(queue.Full):
                self._incoming.put(item, timeout=0.2)
                return True
        return False

    def _watch(self, deadline: float) -> None:
        """Until the program's streams are closed, or it has ended and something else holds them, or time is up."""
        pause = 0.02
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._timed_out = self._program.ending().running
                return
            try:
                item = self._incoming.get(timeout=min(pause, left))
            except queue.Empty:
                if not self._program.ending().running:
                    return
                pause = min(pause * 2, 0.5)
                continue
            if item is None:
                self._closed = True
                return
            self._take(*item)

    def _take(self, stream: Stream, chunk: bytes) -> None:
        room = OUTPUT_CAP - len(self._kept[stream])
        self._total[stream] += len(chunk)
        if room > 0:
            self._kept[stream] += chunk[:room]
            if self._on_output is not None:
                self._on_output(stream, chunk[:room])

    def _drain(self) -> None:
        """What was written before the end is still on its way; the engine closes the streams behind it."""
        end = time.monotonic() + GRACE
        while not self._closed and (left := end - time.monotonic()) > 0:
            try:
                # Not all of it at once: a Ctrl-C that comes just before a wait begins is seen when the wait ends.
                item = self._incoming.get(timeout=min(left, 0.5))
            except queue.Empty:
                continue
            if item is None:
                return
            self._take(*item)

    def _end(self) -> list[str]:
        """Everything of the run is dead when this returns: the words of the keeper's last line."""
        self._ended = True
        overdue = threading.Timer(GRACE, self._last_resort)
        overdue.start()
        try:
            with contextlib.suppress(OSError):
                self._keeper.send(b"end\n")
            words = next(self._said, "").split(" ", 3)
        finally:
            overdue.cancel()
        if words[0] != "done":
            raise ProviderOutcomeUnknown("The container went away during the run")
        return words

    def _finish(self, started: float) -> ExecutionResult:
        words = self._end()
        duration = time.monotonic() - started
        self._drain()
        code, signal = self._classify(words[2:])
        oom = signal == 9 and not self._timed_out and number(words[1:2]) > self._oom_before
        return ExecutionResult(
            exit_code=124 if self._timed_out else code,
            stdout=bytes(self._kept["stdout"]),
            stderr=bytes(self._kept["stderr"]),
            stdout_bytes=self._total["stdout"],
            stderr_bytes=self._total["stderr"],
            duration=duration,
            timed_out=self._timed_out,
            signal=None if self._timed_out else signal,
            oom_killed=oom,
        )

    def _classify(self, said: list[str]) -> tuple[int, int | None]:
        """Exit code and signal. The run's shell ends with 0 after it wrote down how the program ended."""
        code = settled(self._program).exit_code
        if code is None:
            raise ProviderOutcomeUnknown("The container went away during the run")
        status = said[0] if said else ""
        if code == 0 and status.isdecimal():
            word = said[1].strip() if len(said) > 1 else ""
            return int(status), int(status) - 128 if word and int(status) > 128 else None
        if code > 128:
            return code, code - 128
        if self._timed_out:
            return 124, None
        if code == NOT_INSTALLED:
            raise ProviderUnsupported(f"{self._request.language} is not installed in this sandbox")
        raise ProviderUnavailable(f"The program could not be started in the container (exit code {code})")


def settled(stream: ExecStream) -> Ending:
    """How the process ended; its streams may close a moment before the engine knows that it did."""
    end = time.monotonic() + GRACE
    while (ending := stream.ending()).running and time.monotonic() < end:
        time.sleep(0.005)
    return ending


def lines_of(stream: ExecStream) -> Iterator[str]:
    """What it writes to stdout, by lines."""
    rest = b""
    for name, chunk in stream.output():
        if name == "stdout":
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode("ascii", "replace") for line in whole)


def number(words: list[str]) -> int:
    """The first word as a number; 0 where there is none."""
    return int(words[0]) if words and words[0].isdecimal() else 0
