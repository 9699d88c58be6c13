"""Many runs: nothing is left of them in this process, and none gets stuck. The E2B is in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.domain.provider import SandboxSpec
from tests.integration.e2b.conftest import MakeRequest, MakeSpec

ROOT = Path(__file__).parents[3]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[E2BProvider]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cloud.e2b"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server:
        for name, value in json.loads(server.stdout.readline()).items():
            monkeypatch.setenv(name, value)
        yield E2BProvider()
        server.stdin.close()
        assert server.wait(30) == 0


def _tasks() -> int:
    """Threads of this process, those of the SDK's Rust parts included."""
    return len(list(Path("/proc/self/task").iterdir()))


def _ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nexus-e2b")]


def _sockets() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return sum(link.startswith("socket:") for link in links)


def test_two_hundred_runs_leave_no_thread_and_no_connection(
    provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest
) -> None:
    ref = provider.ensure(spec).ref
    for _ in range(5):
        provider.run(ref, make_request(keep_until=spec.expires_at))
    tasks, sockets = _tasks(), _sockets()
    for n in range(200):
        assert provider.run(ref, make_request(f"echo {n}", keep_until=spec.expires_at)).stdout == f"{n}\n".encode()
    end = time.monotonic() + 20
    while (_tasks() > tasks or _sockets() > sockets + 2 or _ours()) and time.monotonic() < end:
        threading.Event().wait(0.05)
    assert (_tasks() <= tasks, _ours()) == (True, [])
    # One connection for the run and one for the push beside it; the pool keeps them.
    assert _sockets() <= sockets + 2


def test_a_hundred_runs_sixteen_at_a_time(
    provider: E2BProvider, make_spec: MakeSpec, make_request: MakeRequest
) -> None:
    refs = [provider.ensure(make_spec()).ref for _ in range(4)]

    def one(n: int) -> tuple[bytes, bytes, int]:
        result = provider.run(refs[n % 4], make_request(f"echo {n}; echo e{n} >&2; exit {n}", timeout=60))
        return result.stdout, result.stderr, result.exit_code

    with ThreadPoolExecutor(16) as pool:
        runs = [pool.submit(one, n) for n in range(100)]
        results = [run.result(120) for run in runs]
    assert results == [(f"{n}\n".encode(), f"e{n}\n".encode(), n) for n in range(100)]
