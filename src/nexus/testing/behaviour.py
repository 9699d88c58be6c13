"""What a run in a fake sandbox does: a callable gets a `FakeRun` and returns an `Outcome`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from nexus.domain.provider import OUTPUT_CAP, OutputSink, RunRequest, Stream
from nexus.testing.cloud import FakeCloud
from nexus.testing.records import ExecutionRecord, FakeResource


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scripted run ends, after `seconds` of the cloud's clock."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    signal: int | None = None
    oom_killed: bool = False


class RunStopped(Exception):
    """Raised inside a behaviour that must end now: `timed out`, `cancelled` or `lost`. Clean up and let it pass."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class FakeRun:
    """One run, as its behaviour sees it."""

    def __init__(
        self,
        cloud: FakeCloud,
        resource: FakeResource,
        execution: ExecutionRecord,
        request: RunRequest,
        on_output: OutputSink | None,
    ) -> None:
        self.request = request
        self.resource = resource
        """The sandbox as it was when the run began."""
        self._cloud = cloud
        self._execution = execution
        self._on_output = on_output
        self._deadline = execution.started_at + timedelta(seconds=request.timeout)
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._written: dict[Stream, int] = {"stdout": 0, "stderr": 0}

    @property
    def home(self) -> Path | None:
        """The sandbox's folder, for behaviours that run real programs; None on a cloud without a path."""
        return self._cloud.files.home(self.resource.id)

    @property
    def paused(self) -> bool:
        """The sandbox is paused under the run: a real program must be stopped meanwhile."""
        now = self._cloud.get(self.resource.id)
        return now is not None and now.condition == "paused"

    def read_file(self, path: str) -> bytes:
        return self._cloud.files.read(self.resource.id, path)

    def write_file(self, path: str, data: bytes) -> None:
        self._cloud.files.write(self.resource.id, path, data)

    def emit(self, stream: Stream, data: bytes) -> None:
        """Write output; what is beyond the cap is counted and dropped."""
        kept = self._kept[stream]
        self._written[stream] += len(data)
        part = data[: OUTPUT_CAP - len(kept)]
        if part:
            kept += part
            if self._on_output is not None:
                self._on_output(stream, part)

    def check(self) -> None:
        """Raise `RunStopped` if the run must end."""
        if self._cloud.cancelled(self._execution.number):
            raise RunStopped("cancelled")
        now = self._cloud.get(self.resource.id)
        if now is None or now.incarnation != self.resource.incarnation:
            raise RunStopped("lost")
        if self._cloud.clock.now() >= self._deadline:
            raise RunStopped("timed out")

    def wait(self, seconds: float) -> None:
        """Let time pass; none passes for a paused sandbox. Raises `RunStopped` the moment the run must end."""
        clock = self._cloud.clock
        left = seconds
        while True:
            self.check()
            if left <= 0:
                return
            before = clock.now()
            clock.sleep(min(left, clock.slice, (self._deadline - before).total_seconds()))
            if not self.paused:
                left -= (clock.now() - before).total_seconds()

    @property
    def output(self) -> tuple[bytes, bytes, int, int]:
        """Kept stdout and stderr, and the bytes written to each."""
        return (
            bytes(self._kept["stdout"]),
            bytes(self._kept["stderr"]),
            self._written["stdout"],
            self._written["stderr"],
        )


Behaviour = Callable[[FakeRun], Outcome]


def echo(run: FakeRun) -> Outcome:
    """The default: prints the code, or the command line, and exits 0. Nothing is executed."""
    request = run.request
    return Outcome(stdout=request.code if request.code is not None else shlex.join(request.argv or ()).encode())
