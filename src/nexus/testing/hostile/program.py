"""What a hostile program is, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nexus.domain.provider import ExecutionResult

Ending = Literal["held", "timed out", "either", "killed", "any"]
"""How the run must end: the program says `held`; it runs into its time-out; one of these two; a signal or an error
kills it; or whatever (its effects are what is checked)."""

PRELUDE = '''
import ctypes, errno, os, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, call, *arguments):
    """Say so if the call works."""
    try:
        answer = call(*arguments)
    except Exception as error:
        return error
    if answer is not False and answer != -1:
        print("ESCAPED:", what, repr(answer)[:200], flush=True)
def held():
    print("held", flush=True)
'''
_OVERRUN = 1.0


@dataclass(frozen=True)
class Hostile:
    """One program.

    `timeout` is in seconds. `stills` is a file that a process of the run appends to for as long as it lives.
    """

    name: str
    code: str
    ending: Ending = "held"
    language: str = "python"
    timeout: int = 10
    stdin: bytes = b""
    stills: str = ""
    within: float | None = None
    """Seconds after which it must be over although something that it started goes on."""
    least_output: int = 0
    """Bytes that it must have written to its standard output, of which no more than the cap may have been kept."""
    contains: bytes = b""
    """What its standard output must hold, byte for byte."""
    exit_code: int | None = None

    @property
    def source(self) -> bytes:
        return ((PRELUDE if self.language == "python" else "") + self.code).encode()


def judge(program: Hostile, result: ExecutionResult, elapsed: float) -> None:
    """Raise AssertionError unless `result`, which took `elapsed` seconds, is what must come of the program."""
    told = f"{program.name}: {result.exit_code=} {result.timed_out=} {result.signal=} {elapsed=:.2f}\n"
    told += f"{result.stdout[-1500:]!r}\n{result.stderr[-1500:]!r}"
    assert b"ESCAPED" not in result.stdout, told
    assert elapsed <= program.timeout + _OVERRUN, f"ran on past its time-out: {told}"
    held = b"held" in result.stdout
    match program.ending:
        case "held":
            assert held and not result.timed_out, told  # noqa: PT018
        case "timed out":
            assert result.timed_out and result.exit_code == 124, told  # noqa: PT018
        case "either":
            assert held or result.timed_out, told
        case "killed":
            assert result.exit_code != 0 and not result.timed_out and not held, told  # noqa: PT018
    if program.within is not None:
        assert elapsed <= program.within, f"waited for what it left behind: {told}"
    assert result.stdout_bytes >= program.least_output, told
    if program.least_output > len(result.stdout):
        assert result.truncated, told
    assert program.contains in result.stdout, told
    if program.exit_code is not None:
        assert result.exit_code == program.exit_code, told
