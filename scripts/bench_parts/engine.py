"""What the two durable events of a run cost: the whole of `sandbox_run` against the provider alone and plain python."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from unittest import mock

from nexus import LocalBackend, NexusFS
from nexus.domain.provider import ExecutionResult, OutputSink, Provider, Ref, RunRequest
from scripts.bench_parts._measure import Call, Row, compare, summary, timed

CODE = "print(1)"


def plain() -> None:
    """What the bars are stated in: one interpreter started for one line."""
    subprocess.run([sys.executable, "-c", CODE], check=True, stdout=subprocess.DEVNULL)


def rows() -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder,
        NexusFS(backend=LocalBackend(), data_dir=folder, sandbox_provider="local", auto_cleanup=False) as nx,
    ):
        sandbox_id = nx.sandbox_create("bench")["sandbox_id"]
        try:
            return _rows(nx, sandbox_id, nx.engine.providers.get("local"))
        finally:
            nx.sandbox_stop(sandbox_id)


def _rows(nx: NexusFS, sandbox_id: str, provider: Provider) -> list[Row]:
    stored = nx.engine.status(nx.principal, sandbox_id).ref
    if stored is None:
        raise RuntimeError("the sandbox is active and has no ref")
    ref = Ref.from_json(stored)
    numbers = itertools.count()

    def whole() -> None:
        nx.sandbox_run(sandbox_id, "python", CODE)

    def port() -> None:
        provider.run(ref, RunRequest(execution_id=f"ex_bench{next(numbers)}", timeout=30, code=CODE.encode()))

    return [
        compare("run python: sandbox_run / python3 -c", whole, plain, 100, 0.9),
        compare("run python: provider port / python3 -c", port, plain, 100, 0.6),
        summary("ms more", "what event sourcing adds to a run (SQLite)", _shares(whole, provider, 200), 5.0),
    ]


def _shares(whole: Call, provider: Provider, n: int) -> list[tuple[float, float]]:
    """For each run, its time in all and the provider's share: taken from the same run, noise falls on both."""
    run = provider.run
    share = 0.0

    def clocked(ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        nonlocal share
        begin = time.perf_counter_ns()
        try:
            return run(ref, request, on_output)
        finally:
            share = (time.perf_counter_ns() - begin) / 1e6

    with mock.patch.object(provider, "run", clocked):
        return [(timed(whole), share) for _ in range(n)]
