"""Programs behave as they would without a sandbox, and each starts with nothing of the last."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from nexus.adapters.agent.stream import connect_unix
from nexus.adapters.providers.local import LocalProvider, interpreters
from nexus.domain.errors import ProviderInvalidRequest, ProviderOutcomeUnknown
from nexus.domain.provider import ExecutionResult, Observed, RunRequest
from tests.integration.local.conftest import MakeSpec, Run

MODES = pytest.mark.parametrize("mode", ["warm", "fresh"])


@pytest.fixture
def sandbox(provider: LocalProvider, make_spec: MakeSpec) -> Observed:
    return provider.ensure(make_spec(network="none"))


SCRIPTS: dict[str, tuple[str, int, bytes, bytes]] = {
    "the main module": (
        """
print(__name__, __doc__, __spec__)
""",
        0,
        b"__main__ None None\n",
        b"",
    ),
    "its docstring": (
        '"""Mine."""\nprint(__doc__)',
        0,
        b"Mine.\n",
        b"",
    ),
    "classes of the main module": (
        """
class A: pass
import sys
print(A.__module__, sys.modules['__main__'].A is A)
""",
        0,
        b"__main__ True\n",
        b"",
    ),
    "an exit code": (
        "import sys; sys.exit(3)",
        3,
        b"",
        b"",
    ),
    "an exit with words": (
        "import sys; sys.exit('words')",
        1,
        b"",
        b"words\n",
    ),
    "an exit without": (
        "raise SystemExit",
        0,
        b"",
        b"",
    ),
    "an exit from a function that catches errors": (
        """
try:
    exit(4)
except Exception: pass
""",
        4,
        b"",
        b"",
    ),
    "things to do at exit": (
        """
import atexit
atexit.register(print, 'bye')
print('hi')
""",
        0,
        b"hi\nbye\n",
        b"",
    ),
    "a finalizer": (
        """
class A:
    def __del__(self): print('gone')
a = A()
b = [a]; b.append(b)
""",
        0,
        b"gone\n",
        b"",
    ),
    "a file that is not closed": (
        """
f = open('left', 'w'); f.write('x' * 10)
import os, atexit
""",
        0,
        b"",
        b"",
    ),
    "threads that go on": (
        """
import threading, time
threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()
""",
        0,
        b"late\n",
        b"",
    ),
    "a daemon thread": (
        """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
        0,
        b"",
        b"",
    ),
    "a fork": (
        """
import os
if os.fork() == 0:
    print('child')
    os._exit(0)
os.wait()
print('parent')
""",
        0,
        b"child\nparent\n",
        b"",
    ),
    "processes": (
        """
import multiprocessing as m
def f(x): return x * x
if __name__ == '__main__':
    with m.Pool(2) as p: print(p.map(f, [1, 2, 3]))
""",
        0,
        b"[1, 4, 9]\n",
        b"",
    ),
    "spawned processes": (
        """
import multiprocessing as m
def f(q): q.put(7)
if __name__ == '__main__':
    c = m.get_context('spawn'); q = c.Queue()
    p = c.Process(target=f, args=(q,)); p.start(); print(q.get()); p.join(); print(p.exitcode)
""",
        0,
        b"7\n0\n",
        b"",
    ),
    "an interrupt": (
        "raise KeyboardInterrupt",
        130,
        b"",
        b"KeyboardInterrupt",
    ),
    "a syntax error": (
        "x = (",
        1,
        b"",
        b"SyntaxError",
    ),
    "its own hook": (
        """
import sys
sys.excepthook = lambda kind, *rest: print('hook', kind.__name__)
1/0
""",
        1,
        b"hook ZeroDivisionError\n",
        b"",
    ),
    "the working folder": (
        """
import os, sys
open('m.py', 'w').write('x = 5')
import m
print(os.getcwd(), m.x)
""",
        0,
        b"/home/user 5\n",
        b"",
    ),
    "what it was called with": (
        """
import sys; print(len(sys.argv), sys.flags.isolated, sys.flags.no_site)
""",
        0,
        b"1 0 0\n",
        b"",
    ),
    "output through the descriptor": (
        r"""
import os, sys
print('a'); os.write(1, b'b\n'); sys.stdout.write('c'); sys.stdout.flush(); os.write(1, b'd')
""",
        0,
        b"a\nb\ncd",
        b"",
    ),
    "bytes": (
        "import sys; sys.stdout.buffer.write(bytes(range(256)))",
        0,
        bytes(range(256)),
        b"",
    ),
    "a closed standard output": (
        """
import sys
sys.stdout.close()
""",
        0,
        b"",
        b"",
    ),
    "the C library's output": (
        "import ctypes; ctypes.CDLL(None).printf(b'from C')",
        0,
        b"from C",
        b"",
    ),
}


LEAVE = """
import builtins, os, sys
builtins.left = 1
os.environ['LEFT'] = '1'
os.chdir('/tmp')
os.umask(0o77)
sys.path.append('left')
"""
LOOK = """
import builtins, os, sys
left = hasattr(builtins, 'left'), os.environ.get('LEFT'), os.environ.get('ONCE')
print(*left, os.getcwd(), oct(os.umask(0)), 'left' in sys.path)
"""


@MODES
@pytest.mark.parametrize("name", SCRIPTS)
def test_python(name: str, mode: str, sandbox: Observed, run: Run) -> None:
    code, exit_code, stdout, stderr = SCRIPTS[name]
    result = run(sandbox.ref, code, mode=mode)
    assert (result.exit_code, result.stdout) == (exit_code, stdout), result
    assert stderr in result.stderr
    assert stderr or not result.stderr, result
    if name == "a file that is not closed":
        assert run(sandbox.ref, "cat left", "bash").stdout == b"x" * 10


@MODES
def test_a_traceback_shows_the_users_lines_and_no_others(mode: str, sandbox: Observed, run: Run) -> None:
    result = run(sandbox.ref, "def f():\n    return 1 / 0  # here\n\nf()\n", mode=mode)
    assert result.stderr.count(b"File ") == 2, result.stderr.decode()
    assert b"return 1 / 0  # here" in result.stderr
    assert b"nexus/adapters" not in result.stderr
    threads = run(
        sandbox.ref,
        "import threading\ndef f(): raise ValueError  # there\nt = threading.Thread(target=f); t.start(); t.join()",
        mode=mode,
    )
    assert b"raise ValueError  # there" in threads.stderr


@MODES
def test_input(mode: str, sandbox: Observed, run: Run) -> None:
    assert run(sandbox.ref, "print(input() + input())", stdin=b"a\nb\n", mode=mode).stdout == b"ab\n"
    assert b"EOFError" in run(sandbox.ref, "input()", mode=mode).stderr
    large = run(sandbox.ref, "import sys; print(len(sys.stdin.buffer.read()))", stdin=b"x" * (5 << 20), mode=mode)
    assert large.stdout == b"%d\n" % (5 << 20)


def test_nothing_of_a_run_is_in_the_next(sandbox: Observed, run: Run) -> None:
    assert run(sandbox.ref, LEAVE, env={"ONCE": "1"}).exit_code == 0
    assert run(sandbox.ref, LOOK).stdout == b"False None None /home/user 0o22 False\n"


def test_random_numbers_differ_between_runs(sandbox: Observed, run: Run) -> None:
    seen = {run(sandbox.ref, "import random, uuid, os\nprint(random.random(), uuid.uuid4())").stdout for _ in range(3)}
    assert len(seen) == 3


def test_large_environment_code_and_arguments(sandbox: Observed, run: Run, provider: LocalProvider) -> None:
    env = {f"V{n}": "x" * 1000 for n in range(200)}
    assert (
        run(sandbox.ref, "import os; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'))", env=env).stdout
        == b"200000\n"
    )
    assert run(sandbox.ref, "x = '" + "y" * (3 << 20) + "'\nprint(len(x))").stdout == b"%d\n" % (3 << 20)
    request = RunRequest("ex_args", 10, argv=("printf", "%s,", *["a b", "", "ünï", "$HOME"]))
    assert provider.run(sandbox.ref, request).stdout == "a b,,ünï,$HOME,".encode()


JAVASCRIPT = {
    "require": (
        "const fs = require('fs'); console.log(typeof fs.readFileSync, require.main === module)",
        b"function true\n",
    ),
    "names": ("console.log(__filename, process.argv.length, process.cwd())", b"/home/user/main.js 2 /home/user\n"),
    "import": ("import fs from 'node:fs'; console.log(typeof fs.readFileSync)", b"function\n"),
    "await at the top": ("await null; console.log('after')", b"after\n"),
    "the environment": ("console.log(process.env.MINE, process.env.HOME)", b"1 /home/user\n"),
    "later": ("setTimeout(() => console.log('late'), 50)", b"late\n"),
}


@MODES
@pytest.mark.parametrize("name", JAVASCRIPT)
def test_javascript(name: str, mode: str, sandbox: Observed, run: Run) -> None:
    code, stdout = JAVASCRIPT[name]
    for _ in range(2):  # by the first, and by the one that has waited since
        result = run(sandbox.ref, code, "javascript", mode=mode, env={"MINE": "1"})
        assert (result.exit_code, result.stdout, result.stderr) == (0, stdout, b""), result


def test_javascript_that_fails(sandbox: Observed, run: Run) -> None:
    for _ in range(2):
        result = run(sandbox.ref, "\nthrow new Error('mine')", "javascript")
        assert result.exit_code == 1
        assert result.stderr.startswith(b"/home/user/main.js:2\nthrow new Error('mine')"), result.stderr.decode()
    broken = run(sandbox.ref, "\nlet = = 1", "javascript")
    assert broken.stderr.startswith(b"/home/user/main.js:2\nlet = = 1"), broken.stderr.decode()
    unhandled = run(sandbox.ref, "await Promise.reject(new Error('there'))", "javascript")
    assert (unhandled.exit_code, b"Error: there" in unhandled.stderr) == (1, True), unhandled
    assert run(sandbox.ref, "process.exit(5)", "javascript").exit_code == 5


def test_javascript_reads_its_input(sandbox: Observed, run: Run) -> None:
    for _ in range(2):
        result = run(
            sandbox.ref, "console.log(require('fs').readFileSync(0, 'utf8').length)", "javascript", stdin=b"abc"
        )
        assert result.stdout == b"3\n", result


def test_an_id_runs_once_and_never_after_it_was_cancelled(provider: LocalProvider, sandbox: Observed, run: Run) -> None:
    count = RunRequest("ex_once", 10, "bash", b"echo x >> count")
    assert provider.run(sandbox.ref, count).exit_code == 0
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, count)
    provider.cancel(sandbox.ref, "ex_never")
    with pytest.raises(ProviderOutcomeUnknown):
        provider.run(sandbox.ref, RunRequest("ex_never", 10, "bash", b"echo x >> count"))
    assert run(sandbox.ref, "cat count", "bash").stdout == b"x\n"


def test_a_lost_connection_takes_its_run_along(provider: LocalProvider, sandbox: Observed, run: Run) -> None:
    link = provider._connected(provider._folder(sandbox.ref))
    request = RunRequest("ex_lost", 60, "bash", b"while :; do echo x >> beat; sleep 0.02; done")

    def run_until_lost() -> None:
        with pytest.raises(ProviderOutcomeUnknown):
            link.run(request)

    thread = threading.Thread(target=run_until_lost)
    thread.start()
    while not run(sandbox.ref, "cat beat 2>/dev/null", "bash").stdout:
        time.sleep(0.01)
    link.close()
    thread.join(10)
    end = time.monotonic() + 5
    sizes = "wc -c < beat; sleep 0.1; wc -c < beat"
    while len(set(run(sandbox.ref, sizes, "bash").stdout.split())) == 2:
        assert time.monotonic() < end, "the run goes on without its client"


def test_a_client_that_talks_nonsense_is_dropped_alone(provider: LocalProvider, sandbox: Observed, run: Run) -> None:
    folder = str(provider._folder(sandbox.ref).path)
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"NX\x01\x02" + b"\xff" * 64, b"\0" * 100):
        stream = connect_unix(folder, "agent", 5)
        stream.send(nonsense, 5)
        assert stream.receive(5) == b""
        stream.close()
    assert run(sandbox.ref, "print('well')").stdout == b"well\n"


def test_many_at_once(provider: LocalProvider, sandbox: Observed) -> None:
    results: list[ExecutionResult] = []

    def one(n: int) -> None:
        results.append(
            provider.run(
                sandbox.ref, RunRequest(f"ex_{n}", 30, "python", f"import time; time.sleep(0.2); print({n})".encode())
            )
        )

    threads = [threading.Thread(target=one, args=(n,)) for n in range(24)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(int(result.stdout) for result in results) == list(range(24))
    assert time.monotonic() - begun < 24 * 0.2, "they did not overlap"


@pytest.mark.parametrize("fields", [{"timeout": 0}, {"execution_id": ""}, {"argv": ()}])
def test_runs_that_make_no_sense(fields: dict[str, object], provider: LocalProvider, sandbox: Observed) -> None:
    values: dict[str, object] = {
        "execution_id": "ex_1",
        "timeout": 5,
        "code": None if "argv" in fields else b"",
        **fields,
    }
    with pytest.raises(ProviderInvalidRequest):
        provider.run(sandbox.ref, RunRequest(**values))  # type: ignore[arg-type]


def test_the_default_template_has_pandas_and_numpy(sandbox: Observed, run: Run) -> None:
    prepared = Path(sys.prefix) / interpreters.DEFAULT_TEMPLATE
    assert prepared.exists(), "the default template is missing: run scripts/setup"
    table = "pandas.read_csv(io.StringIO('a,b\\n1,2\\n3,4'))"
    code = f"import io, numpy, pandas, sys\nprint({table}.sum().tolist(), sys.executable)"
    assert run(sandbox.ref, code, timeout=60).stdout == f"[4, 6] {prepared}\n".encode()
