"""Contract: what a run is given, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from nexus.domain.errors import ProviderError, ProviderInvalidRequest, ProviderUnsupported
from nexus.domain.provider import OUTPUT_CAP, Observed, Provider, RunRequest, Template
from nexus.testing.provider_contract.base import ContractBase, Listener, MakeSpec, done, new_execution_id

LANGUAGES = ("python", "javascript", "bash")

BOTH_STREAMS: Mapping[str, str] = {
    "python": "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
    "javascript": "console.log('out'); console.error('err'); process.exitCode = 3",
    "bash": "echo out; echo err >&2; exit 3",
}
STDIN_LENGTH: Mapping[str, str] = {
    "python": "import sys; print(len(sys.stdin.buffer.read()))",
    "javascript": "let n = 0; process.stdin.on('data', d => n += d.length).on('end', () => console.log(n))",
    "bash": "wc -c | tr -d ' '",
}
ENVIRONMENT: Mapping[str, str] = {
    "python": "import os; print(os.environ['FROM_SPEC'], os.environ['BOTH'], os.environ['FROM_RUN'])",
    "javascript": "const e = process.env; console.log(e.FROM_SPEC, e.BOTH, e.FROM_RUN)",
    "bash": 'echo "$FROM_SPEC" "$BOTH" "$FROM_RUN"',
}
ALL_BYTES: Mapping[str, str] = {
    "python": "import sys; b = bytes(range(256)); sys.stdout.buffer.write(b); sys.stderr.buffer.write(b[::-1])",
    "javascript": (
        "const b = Buffer.from([...Array(256).keys()]); process.stdout.write(b);"
        "process.stderr.write(Buffer.from(b).reverse())"
    ),
    "bash": (
        'for i in {0..255}; do printf "\\\\x$(printf %x $i)"; done;'
        'for i in {255..0}; do printf "\\\\x$(printf %x $i)" >&2; done'
    ),
}
WAIT_FOR_GO: Mapping[str, str] = {
    "python": (
        "import os, time\nprint('first', flush=True)\nwhile not os.path.exists('go'): time.sleep(.02)\nprint('last')"
    ),
    "javascript": (
        "console.log('first'); const t = setInterval(() => {"
        "if (require('fs').existsSync('go')) { clearInterval(t); console.log('last') } }, 20)"
    ),
    "bash": "echo first; until [ -e go ]; do sleep 0.02; done; echo last",
}


class RunContract(ContractBase):
    def speaks(self, provider: Provider, sandbox: Observed, language: str) -> bool:
        """False after checking that a language that is not declared is refused."""
        if language in provider.capabilities.languages:
            return True
        with pytest.raises(ProviderUnsupported):
            self.execute(provider, sandbox.ref, "1", language)
        return False

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_streams_and_exit_code(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        result = self.execute(provider, sandbox.ref, BOTH_STREAMS[language], language)
        assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)
        assert (result.stdout_bytes, result.stderr_bytes) == (4, 4)
        assert (result.timed_out, result.truncated, result.signal) == (False, False, None)
        assert 0 < result.duration < self.patience

    def test_an_unknown_language_is_refused(self, provider: Provider, sandbox: Observed) -> None:
        assert not self.speaks(provider, sandbox, "cobol-85")

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_stdin_reaches_the_program(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        data = bytes(range(256)) * 800
        if not provider.capabilities.stdin:
            with pytest.raises(ProviderUnsupported):
                self.execute(provider, sandbox.ref, STDIN_LENGTH[language], language, stdin=data)
            return
        result = self.execute(provider, sandbox.ref, STDIN_LENGTH[language], language, stdin=data)
        assert result.stdout.split() == [str(len(data)).encode()], result
        result = self.execute(provider, sandbox.ref, STDIN_LENGTH[language], language)
        assert result.stdout.split() == [b"0"], "without stdin a program reads the end at once"

    def test_stdin_arrives_byte_for_byte(self, provider: Provider, sandbox: Observed) -> None:
        if provider.capabilities.stdin:
            data = bytes(range(256)) * 4
            assert self.execute(provider, sandbox.ref, "cat", stdin=data).stdout == data

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_environment(self, provider: Provider, make_spec: MakeSpec, template: Template, language: str) -> None:
        spec = make_spec(
            env={"FROM_SPEC": "a b", "BOTH": "spec"},
            template=replace(template, env={**template.env, "FROM_SPEC": "template"}),
        )
        sandbox = provider.ensure(spec)
        if not self.speaks(provider, sandbox, language):
            return
        request = {"BOTH": "run", "FROM_RUN": "$HOME 'q' \"d\" é"}
        result = self.execute(provider, sandbox.ref, ENVIRONMENT[language], language, env=request)
        assert result.stdout.decode() == "a b run $HOME 'q' \"d\" é\n"
        after = self.execute(provider, sandbox.ref, 'echo "$BOTH,$FROM_RUN"')
        assert after.stdout == b"spec,\n", "a run's environment is its own"

    def test_argv_runs_without_a_shell(self, provider: Provider, sandbox: Observed) -> None:
        argv = ("printf", "%s|", "a b", "$HOME", "*", "'", "", "é\n")
        if not provider.capabilities.argv:
            with pytest.raises(ProviderUnsupported):
                self.execute(provider, sandbox.ref, None, argv=argv)
            return
        result = self.execute(provider, sandbox.ref, None, argv=argv)
        assert result.stdout.decode() == "a b|$HOME|*|'||é\n|"
        assert self.execute(provider, sandbox.ref, None, argv=("sh", "-c", "exit 7")).exit_code == 7

    def test_a_program_that_is_missing_exits_127(self, provider: Provider, sandbox: Observed) -> None:
        if provider.capabilities.argv:
            result = self.execute(provider, sandbox.ref, None, argv=("no-such-program-here",))
            assert result.exit_code == 127
            assert result.stderr, "it says what is missing"

    @pytest.mark.parametrize("both", [True, False], ids=["code and argv", "neither"])
    def test_a_run_is_code_or_argv(self, provider: Provider, sandbox: Observed, both: bool) -> None:
        request = self.request("echo", argv=("echo",)) if both else self.request(None)
        with pytest.raises(ProviderInvalidRequest):
            provider.run(sandbox.ref, request)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_empty_code_does_nothing_well(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        result = self.execute(provider, sandbox.ref, b"", language)
        assert (result.exit_code, result.stdout) == (0, b"")

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_long_code(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        mark = "//" if language == "javascript" else "#"
        code = f"{mark} {'é' * 200_000}\n" + BOTH_STREAMS[language]
        result = self.execute(provider, sandbox.ref, code, language)
        assert (result.stdout, result.exit_code) == (b"out\n", 3), result.stderr[-500:]

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_a_fresh_interpreter(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        result = self.execute(provider, sandbox.ref, BOTH_STREAMS[language], language, mode="fresh")
        assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)

    def test_runs_share_the_working_folder(self, provider: Provider, sandbox: Observed) -> None:
        assert self.execute(provider, sandbox.ref, "echo kept > state.txt").exit_code == 0
        assert self.execute(provider, sandbox.ref, "cat state.txt").stdout == b"kept\n"

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_output_is_bytes_as_written(self, provider: Provider, sandbox: Observed, language: str) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        listener = Listener()
        result = self.execute(provider, sandbox.ref, ALL_BYTES[language], language, on_output=listener)
        assert result.stdout == bytes(range(256))
        assert result.stderr == bytes(range(256))[::-1]
        assert listener.heard == {"stdout": result.stdout, "stderr": result.stderr}

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_output_streams_while_the_program_runs(
        self, provider: Provider, sandbox: Observed, background: ThreadPoolExecutor, language: str
    ) -> None:
        if not self.speaks(provider, sandbox, language):
            return
        listener = Listener()
        run = background.submit(
            self.execute, provider, sandbox.ref, WAIT_FOR_GO[language], language, on_output=listener
        )
        try:
            assert listener.came.wait(self.patience), "nothing was heard while the program ran"
            assert listener.heard["stdout"] == b"first\n"
        finally:
            self.execute(provider, sandbox.ref, "touch go")
        assert done(run, self.patience).stdout == b"first\nlast\n"
        assert listener.heard["stdout"] == b"first\nlast\n"

    def test_programs_start_with_default_signals(self, provider: Provider, sandbox: Observed) -> None:
        result = self.execute(provider, sandbox.ref, "yes | head -n 1")
        assert (result.stdout, result.stderr) == (b"y\n", b""), "a broken pipe must end a program silently"

    def test_output_beyond_the_cap_is_counted_and_dropped(self, provider: Provider, sandbox: Observed) -> None:
        listener = Listener()
        more = OUTPUT_CAP + 300_001
        code = f"yes abcdefg | head -c {more}; echo end >&2"
        result = self.execute(provider, sandbox.ref, code, on_output=listener)
        assert result.exit_code == 0
        assert len(result.stdout) == OUTPUT_CAP
        assert result.stdout == (b"abcdefg\n" * (OUTPUT_CAP // 8 + 1))[:OUTPUT_CAP]
        assert result.stdout_bytes == more
        assert result.truncated
        assert (result.stderr, result.stderr_bytes) == (b"end\n", 4), "the streams have a cap each"
        assert listener.heard["stdout"] == result.stdout

    def test_output_up_to_the_cap_is_whole(self, provider: Provider, sandbox: Observed) -> None:
        result = self.execute(provider, sandbox.ref, f"head -c {OUTPUT_CAP} /dev/zero")
        assert result.stdout == bytes(OUTPUT_CAP)
        assert (result.stdout_bytes, result.truncated) == (OUTPUT_CAP, False)

    def test_a_program_that_dies_of_a_signal(self, provider: Provider, sandbox: Observed) -> None:
        result = self.execute(provider, sandbox.ref, "echo bye; kill -KILL $$")
        assert (result.exit_code, result.signal, result.stdout) == (137, 9, b"bye\n")
        result = self.execute(provider, sandbox.ref, "kill -TERM $$")
        assert (result.exit_code, result.signal, result.timed_out) == (143, 15, False)

    def test_exit_codes_of_its_own_are_not_mistaken(self, provider: Provider, sandbox: Observed) -> None:
        for code in (124, 137, 255):
            result = self.execute(provider, sandbox.ref, f"exit {code}")
            assert (result.exit_code, result.signal, result.timed_out) == (code, None, False)

    def test_a_process_left_behind_does_not_hold_up_the_answer(self, provider: Provider, sandbox: Observed) -> None:
        result = self.execute(provider, sandbox.ref, "sleep 25 & echo done")
        assert (result.stdout, result.exit_code, result.timed_out) == (b"done\n", 0, False)
        assert result.duration < 10

    def test_an_execution_runs_at_most_once(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        if not self.refuses_repeats:
            return
        request = RunRequest(new_execution_id(), timeout=20, language="bash", code=b"echo -n x >> once")
        provider.run(sandbox.ref, request)
        for worker in (provider, other):
            try:
                worker.run(sandbox.ref, request)
            except ProviderError:
                pass
        assert self.execute(provider, sandbox.ref, "cat once").stdout == b"x"
