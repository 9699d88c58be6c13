"""Contract: runs of a session go on with each other's variables, and what ends a run leaves them as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nexus.domain.errors import ProviderUnavailable, ProviderUnsupported
from nexus.domain.provider import ExecutionResult, Observed, Provider
from nexus.testing.provider_contract.base import BEATING, ContractBase, Listener, MakeSpec, done


class SessionContract(ContractBase):
    def goes_on(
        self, provider: Provider, sandbox: Observed, code: str, session: str = "work", **fields: Any
    ) -> ExecutionResult:
        """Run python code in a session."""
        return self.execute(provider, sandbox.ref, code, "python", session=session, **fields)

    def begin(self, provider: Provider, sandbox: Observed, code: str) -> ExecutionResult:
        """The first run of the session, also in a sandbox where other tests had one of that name."""
        return self.goes_on(provider, sandbox, code, mode="fresh")

    def keeps_sessions(self, provider: Provider, sandbox: Observed) -> bool:
        """False after checking that a session, where none is declared, is refused and nothing has run."""
        if "python" in provider.capabilities.sessions:
            return True
        language = provider.capabilities.languages[0]
        with pytest.raises(ProviderUnsupported):
            self.execute(provider, sandbox.ref, "1", language, session="work")
        return False

    def test_a_session_keeps_its_variables(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        code = "import json\nx = 41\ndef more(): return x + 1\nprint(__name__)"
        first = self.begin(provider, sandbox, code)
        assert (first.stdout, first.exit_code, first.session_started) == (b"__main__\n", 0, True)
        second = self.goes_on(other, sandbox, "x = more()\nprint(json.dumps([x, input()]))", stdin=b"typed\n")
        assert (second.stdout, second.exit_code, second.session_started) == (b'[42, "typed"]\n', 0, False)
        assert self.goes_on(provider, sandbox, "print('x' in globals())", "other").stdout == b"False\n"
        assert self.execute(provider, sandbox.ref, "print('x' in globals())", "python").stdout == b"False\n"
        assert self.goes_on(provider, sandbox, "print(x)").stdout == b"42\n"
        anew = self.goes_on(provider, sandbox, "print('x' in globals())", mode="fresh")
        assert (anew.stdout, anew.session_started) == (b"False\n", True)

    def test_how_a_run_of_a_session_ends_is_told(self, provider: Provider, sandbox: Observed) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        self.begin(provider, sandbox, "x = 1")
        failed = self.goes_on(provider, sandbox, "x = 2\nprint('out')\nraise ValueError('no')")
        assert (failed.exit_code, failed.stdout) == (1, b"out\n")
        assert failed.stderr.endswith(b"ValueError: no\n")
        assert b"nexus" not in failed.stderr.replace(b"/run/nexus", b"")
        left = self.goes_on(provider, sandbox, "print(x)\nraise SystemExit(7)")
        assert (left.exit_code, left.stdout) == (7, b"2\n")
        assert self.goes_on(provider, sandbox, "import sys\nsys.stdout.close()\nx = 3").exit_code == 0
        assert self.goes_on(provider, sandbox, "print(x)").stdout == b"3\n"

    def test_what_ends_a_run_leaves_the_variables_as_they_were(self, provider: Provider, sandbox: Observed) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        self.begin(provider, sandbox, "x = 'before'")
        late = self.goes_on(provider, sandbox, "x = 'after'\nprint('begun', flush=True)\nwhile True: pass", timeout=1)
        assert (late.timed_out, late.stdout) == (True, b"begun\n")
        assert self.goes_on(provider, sandbox, "print(x)").stdout == b"before\n"
        gone = self.goes_on(provider, sandbox, "import os\nx = 'after'\nos._exit(3)")
        assert (gone.exit_code, gone.signal) == (3, None)
        shot = self.goes_on(provider, sandbox, "import os\nx = 'after'\nos.kill(os.getpid(), 9)")
        assert (shot.exit_code, shot.signal) == (137, 9)
        seen = self.goes_on(provider, sandbox, "print(x)")
        assert (seen.stdout, seen.session_started) == (b"before\n", False)

    def test_nothing_but_the_variables_outlives_a_run(self, provider: Provider, sandbox: Observed) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        code = (
            "import subprocess, threading, time\n"
            f"subprocess.Popen(['bash', '-c', {BEATING!r}], start_new_session=True)\n"
            "def beat():\n"
            "    while True:\n"
            "        open('thread', 'a').write('x'); time.sleep(0.02)\n"
            "threading.Thread(target=beat, daemon=True).start()\n"
            "time.sleep(0.3)\n"
        )
        assert self.begin(provider, sandbox, code).exit_code == 0
        assert self.beats(provider, sandbox.ref) > 0
        assert self.beats(provider, sandbox.ref, "thread") > 0
        self.assert_still(provider, sandbox.ref)
        assert not self.is_beating(provider, sandbox.ref, "thread")
        assert self.goes_on(provider, sandbox, "print('here')").stdout == b"here\n"

    def test_a_session_that_was_killed_begins_anew_and_says_so(self, provider: Provider, sandbox: Observed) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        self.begin(provider, sandbox, "x = 1")
        killed = self.goes_on(provider, sandbox, "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(20)")
        assert killed.exit_code == 137
        anew = self.goes_on(provider, sandbox, "print('x' in globals())")
        assert (anew.stdout, anew.session_started) == (b"False\n", True)

    def test_runs_of_a_session_do_not_overlap(
        self, provider: Provider, sandbox: Observed, background: ThreadPoolExecutor
    ) -> None:
        if not self.keeps_sessions(provider, sandbox):
            return
        listener = Listener()
        request = self.request("print('up', flush=True)\nwhile True: pass", "python", session="work", timeout=20)
        run = background.submit(provider.run, sandbox.ref, request, listener)
        assert listener.came.wait(self.patience)
        with pytest.raises(ProviderUnavailable, match="work"):
            self.goes_on(provider, sandbox, "print(1)")
        assert self.goes_on(provider, sandbox, "print(1)", "other").stdout == b"1\n"
        provider.cancel(sandbox.ref, request.execution_id)
        assert done(run, self.patience).exit_code == 137
        assert self.goes_on(provider, sandbox, "print(2)").stdout == b"2\n"

    def test_a_session_survives_a_pause_that_keeps_processes(self, provider: Provider, make_spec: MakeSpec) -> None:
        spec = make_spec()
        sandbox = provider.ensure(spec)
        if not self.keeps_sessions(provider, sandbox):
            return
        self.goes_on(provider, sandbox, "x = 'kept'")
        paused = provider.pause(sandbox.ref, lambda _ref: None)
        awake = provider.resume(spec, paused)
        seen = self.goes_on(provider, awake, "print('x' in globals())")
        assert seen.session_started is (provider.capabilities.pause != "memory")
        assert seen.stdout == (b"True\n" if provider.capabilities.pause == "memory" else b"False\n")
