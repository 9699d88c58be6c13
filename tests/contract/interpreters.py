"""A behaviour for the fake provider that really runs the code: what the contract suite needs to be tried out on it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from nexus.domain.provider import Stream
from nexus.testing import FakeRun, Outcome

REAPER = Path(__file__).with_name("reaper.py")
COMMANDS = {"python": "python3", "javascript": "node", "bash": "bash"}


def interpret(run: FakeRun) -> Outcome:
    """Run code or argv as a subprocess in the sandbox's folder. It kills what it started and isolates nothing."""
    with tempfile.TemporaryDirectory(prefix="nexus-contract-") as scratch:
        return _interpret(run, Path(scratch))


def _interpret(run: FakeRun, scratch: Path) -> Outcome:
    request = run.request
    (scratch / "stdin").write_bytes(request.stdin)
    if request.argv is not None:
        command = list(request.argv)
    else:
        (scratch / "code").write_bytes(request.code or b"")
        command = [COMMANDS[request.language], str(scratch / "code")]
    status_out, status_in = os.pipe()
    try:
        with (scratch / "stdin").open("rb") as stdin:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(REAPER), str(status_in), *command],
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **run.resource.env, **request.env},
                cwd=run.home,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(status_in,),
            )
    finally:
        os.close(status_in)
    with process:
        try:
            _pump(run, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            status = os.read(status_out, 16)
            os.close(status_out)
    code = os.waitstatus_to_exitcode(int(status or b"9"))
    return Outcome(exit_code=code) if code >= 0 else Outcome(exit_code=128 - code, signal=-code)


def _pump(run: FakeRun, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    streams: dict[int, Stream] = {process.stdout.fileno(): "stdout", process.stderr.fileno(): "stderr"}
    with selectors.DefaultSelector() as selector:
        for fd in streams:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            run.check()
            for key, _ in selector.select(timeout=0.01):
                if data := os.read(key.fd, 1 << 16):
                    run.emit(streams[key.fd], data)
                else:
                    selector.unregister(key.fd)
