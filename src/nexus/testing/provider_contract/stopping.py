"""Contract: runs that are ended from outside, by their time-out, by their caller or by somebody else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from nexus.domain.errors import ProviderOutcomeUnknown
from nexus.domain.provider import ExecutionResult, Observed, Provider, Stream
from nexus.testing.provider_contract.base import BEATING, ContractBase, Listener, done

_PYTHON_DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        for _ in range(1200):
            with open('beat', 'a') as f:
                f.write('x')
            time.sleep(.05)
    os._exit(0)
"""
ESCAPES: Mapping[str, tuple[str, str]] = {
    "a child": ("bash", f"({BEATING}) & echo up; sleep 60"),
    "a child with its own session": (
        "bash",
        f"setsid bash -c '{BEATING}' </dev/null >/dev/null 2>&1 & echo up; sleep 60",
    ),
    "a daemon": ("python", f"{_PYTHON_DAEMON}\nprint('up', flush=True); time.sleep(60)"),
    "a daemon without environment": (
        "bash",
        f"(env -i PATH=\"$PATH\" setsid bash -c '{BEATING}' </dev/null >/dev/null 2>&1 &); echo up; sleep 60",
    ),
    "one that ignores signals": ("bash", f"trap '' TERM HUP INT QUIT; echo up; {BEATING}"),
}


class Enough(Exception):
    """What a caller's `on_output` raises."""


class StopContract(ContractBase):
    @pytest.mark.parametrize("language", ["python", "javascript", "bash"])
    def test_a_time_out_keeps_the_output_so_far(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if language not in provider.capabilities.languages:
            return
        code = {
            "python": "import sys, time; print('so far', flush=True); print('e', file=sys.stderr); time.sleep(60)",
            "javascript": "console.log('so far'); console.error('e'); setTimeout(() => 0, 60000)",
            "bash": "echo so far; echo e >&2; sleep 60",
        }[language]
        result = self.execute(provider, sandbox.ref, code, language, timeout=1)
        assert (result.timed_out, result.exit_code) == (True, 124)
        assert (result.stdout, result.stderr) == (b"so far\n", b"e\n")
        assert 1 <= result.duration < 1 + self.overrun

    @pytest.mark.parametrize("escape", ESCAPES)
    def test_a_time_out_kills_everything(self, provider: Provider, sandbox: Observed, escape: str) -> None:
        language, code = ESCAPES[escape]
        if language not in provider.capabilities.languages:
            return
        result = self.execute(provider, sandbox.ref, code, language, timeout=1)
        assert (result.timed_out, result.stdout) == (True, b"up\n")
        assert result.duration < 1 + self.overrun
        assert self.beats(provider, sandbox.ref) > 0, "it never lived"
        self.assert_still(provider, sandbox.ref)

    def test_a_time_out_spares_the_sandbox_and_other_runs(
        self, provider: Provider, sandbox: Observed, background: ThreadPoolExecutor
    ) -> None:
        listener = Listener()
        code = "echo up; until [ -e go ]; do sleep 0.02; done; echo survived"
        spared = background.submit(self.execute, provider, sandbox.ref, code, on_output=listener)
        assert listener.came.wait(self.patience)
        assert self.execute(provider, sandbox.ref, "sleep 60", timeout=1).timed_out
        assert self.execute(provider, sandbox.ref, "touch go").exit_code == 0
        result: ExecutionResult = done(spared, self.patience)
        assert (result.stdout, result.exit_code) == (b"up\nsurvived\n", 0)

    def test_a_time_out_of_a_flood(self, provider: Provider, sandbox: Observed) -> None:
        result = self.execute(provider, sandbox.ref, "yes", timeout=1)
        assert result.timed_out
        assert result.truncated
        assert result.duration < 1 + self.overrun
        assert self.execute(provider, sandbox.ref, "echo usable").stdout == b"usable\n"

    def test_a_caller_that_raises_kills_the_run(self, provider: Provider, sandbox: Observed) -> None:
        def refuse(stream: Stream, data: bytes) -> None:
            raise Enough

        with pytest.raises(Enough):
            self.execute(provider, sandbox.ref, f"({BEATING}) & echo up; sleep 60", on_output=refuse)
        self.assert_still(provider, sandbox.ref)

    def test_an_interrupt_kills_the_run(self, provider: Provider, sandbox: Observed) -> None:
        listener = Listener()

        def interrupt() -> None:
            if listener.came.wait(self.patience):
                os.kill(os.getpid(), signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                self.execute(provider, sandbox.ref, f"({BEATING}) & echo up; sleep 60", on_output=listener, timeout=60)
        finally:
            helper.join()
        self.assert_still(provider, sandbox.ref)

    @pytest.mark.parametrize("escape", ESCAPES)
    def test_cancel_kills_everything_before_it_returns(
        self, provider: Provider, other: Provider, sandbox: Observed, background: ThreadPoolExecutor, escape: str
    ) -> None:
        language, code = ESCAPES[escape]
        if language not in provider.capabilities.languages:
            return
        listener = Listener()
        request = self.request(code, language, timeout=60)
        run = background.submit(provider.run, sandbox.ref, request, listener)
        assert listener.came.wait(self.patience)
        self.until(lambda: self.beats(provider, sandbox.ref) > 0, "the program beats")
        other.cancel(sandbox.ref, request.execution_id)
        self.assert_still(provider, sandbox.ref)
        try:
            result: ExecutionResult = done(run, self.patience)
        except ProviderOutcomeUnknown:
            return
        assert (result.exit_code != 0, result.timed_out) == (True, False), result

    def test_cancelling_what_does_not_run_is_fine(self, provider: Provider, sandbox: Observed) -> None:
        provider.cancel(sandbox.ref, "ex_unknown")
        request = self.request("echo -n x")
        provider.run(sandbox.ref, request)
        provider.cancel(sandbox.ref, request.execution_id)
        assert self.execute(provider, sandbox.ref, "echo usable").stdout == b"usable\n"

    def test_a_destroy_ends_the_runs_inside(
        self, provider: Provider, other: Provider, sandbox: Observed, background: ThreadPoolExecutor
    ) -> None:
        listener = Listener()
        run = background.submit(
            self.execute, provider, sandbox.ref, "echo up; sleep 60", on_output=listener, timeout=60
        )
        assert listener.came.wait(self.patience)
        assert other.destroy(sandbox.ref)
        with pytest.raises(ProviderOutcomeUnknown):
            done(run, self.patience)
