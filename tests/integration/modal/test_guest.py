"""What runs inside a sandbox, run here as it is: how programs are started, and what they notice of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.providers.modal import guest
from nexus.domain.errors import ProviderInvalidRequest
from nexus.domain.provider import RunRequest

TOUCH = {
    "python": "open('ran', 'w')\n",
    "javascript": "require('fs').writeFileSync('ran', '')\n",
    "bash": "touch ran\n",
}


def start(
    home: Path, code: str | None, language: str = "bash", *, stdin: bytes = b"", missing: int = 0, **fields: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run it as the adapter would, `missing` bytes short of what is announced."""
    body = None if code is None else code.encode() + b" " * missing
    request = RunRequest(f"ex_{home.name}", 30, language, body, stdin=stdin, **fields)
    argv, env = guest.begin(request, "refused-word")
    sent = (code or "").encode() + stdin
    everything = {"PATH": "/usr/bin:/bin", "HOME": str(home), **env}
    return subprocess.run(argv, input=sent, env=everything, cwd=home, capture_output=True, timeout=60)


@pytest.mark.parametrize("language", TOUCH)
@pytest.mark.parametrize("length", [0, 5000], ids=["short", "long"])
def test_code_that_is_cut_short_is_not_run(tmp_path: Path, language: str, length: int) -> None:
    code = TOUCH[language] + "\n" * length
    done = start(tmp_path, code, language, missing=3)
    assert (done.returncode, done.stdout) == (125, b"")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("language", TOUCH)
@pytest.mark.parametrize("length", [0, 5000], ids=["short", "long"])
def test_code_that_is_whole_is_run(tmp_path: Path, language: str, length: int) -> None:
    done = start(tmp_path, TOUCH[language] + "\n" * length, language)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("language", "code", "says"),
    [
        (
            "python",
            "def f():\n    raise ValueError('é')\nf()",
            'Traceback (most recent call last):\n  File "<string>", line 3, in <module>\n'
            '  File "<string>", line 2, in f\nValueError: é\n',
        ),
        ("python", "1 +", '  File "<string>", line 1\n    1 +\n       ^\nSyntaxError: invalid syntax\n'),
        ("bash", "true\nno-such-program", "bash: line 2: no-such-program: command not found\n"),
    ],
    ids=["an exception", "a syntax error", "a shell's"],
)
def test_errors_are_those_of_the_code_alone(tmp_path: Path, language: str, code: str, says: str) -> None:
    done = start(tmp_path, code, language)
    assert done.returncode != 0
    assert done.stderr.decode() == says


def test_a_python_program_is_the_main_one(tmp_path: Path) -> None:
    code = (
        "import pickle, sys\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A, sys.argv, __name__,\n"
        "      sorted(n for n in globals() if not n.startswith('__')))"
    )
    assert start(tmp_path, code, "python").stdout == b"True ['-c'] __main__ ['A', 'pickle', 'sys']\n"


def test_a_javascript_program_has_its_names_for_itself(tmp_path: Path) -> None:
    code = "const fs = require('fs'), code = 1, at = 2, vm = 3; console.log(process.argv.length, code, at, vm)"
    assert start(tmp_path, code, "javascript").stdout == b"1 1 2 3\n"


def test_a_shell_program_sees_no_trace_of_its_loader(tmp_path: Path) -> None:
    done = start(tmp_path, "  echo \"$0|$#|${nexus-unset}|${nexus_dir-unset}\" 'é  x' \\\\\n\n")
    assert done.stdout.decode() == "bash|0|unset|unset é  x \\\n"


@pytest.mark.parametrize("language", TOUCH)
def test_what_follows_the_code_is_the_programs_input(tmp_path: Path, language: str) -> None:
    code = {
        "python": "import sys; sys.stdout.write(sys.stdin.read())",
        "javascript": "process.stdin.pipe(process.stdout)",
        "bash": "cat",
    }[language]
    assert start(tmp_path, code, language, stdin=b"first\nlast").stdout == b"first\nlast"


def test_a_repeat_is_refused_with_a_word_of_its_own(tmp_path: Path) -> None:
    assert start(tmp_path, "echo once").stdout == b"once\n"
    again = start(tmp_path, "echo twice")
    assert (again.returncode, again.stdout, again.stderr) == (guest.REFUSED, b"", b"refused-word")


def test_a_home_that_cannot_be_written_is_no_reason_to_refuse(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()  # nothing can be made below a file, whoever tries
    argv, env = guest.begin(RunRequest("ex_1", 30, argv=("echo", "runs")), "word")
    everything = {"PATH": "/usr/bin:/bin", "HOME": str(home), **env}
    done = subprocess.run(argv, env=everything, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"runs\n", b"")


def test_an_environment_of_128_kib_arrives(tmp_path: Path) -> None:
    env = {f"V{n}": "'é\n" * 5000 for n in range(6)}
    done = start(tmp_path, 'cat /proc/$$/environ | wc -c; printf %s "$V5" | wc -c', env=env)
    assert int(done.stdout.split()[0]) > 120_000, done.stderr
    assert int(done.stdout.split()[1]) == len(env["V5"].encode())


def test_what_is_too_large_or_no_variable_is_refused() -> None:
    for env in ({"A": "x" * 900_000}, {"A B": "x"}, {"": "x"}, {"1A": "x"}, {"A": "x\0y"}, {"A;touch ran": "x"}):
        with pytest.raises(ProviderInvalidRequest):
            guest.sandbox_environment(env)


def test_executions_are_marked_alike_everywhere_and_never_two_alike() -> None:
    assert guest.Marks.of("ex_1") == guest.Marks.of("ex_1")
    marks = [guest.Marks.of(f"ex_{n}") for n in range(1000)]
    assert len({mark.variable for mark in marks}) == len({mark.limit_kib for mark in marks}) == 1000
