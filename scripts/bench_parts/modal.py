"""Modal: what the adapter adds to the bare SDK call, on a loopback Modal in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scripts.bench_parts._measure import Row, compare

ROOT = Path(__file__).parents[2]
BAR = 1.3
PAIRS = 40
RUNS: dict[str, tuple[str, bytes, Sequence[str]]] = {
    "python": ("python", b"print(6 * 7)", ("python3", "-c", "print(6 * 7)")),
    "bash": ("bash", b"echo 42", ("bash", "-c", "echo 42")),
    "javascript": ("javascript", b"console.log(42)", ("node", "-e", "console.log(42)")),
}


@contextmanager
def _loopback_modal() -> Iterator[None]:
    """A loopback Modal for this process, which does not share its interpreter with the server."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cloud.modal"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    before = dict(os.environ)
    try:
        os.environ.update(json.loads(server.stdout.readline()))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stdin.close()
        server.wait(30)
        server.stdout.close()


def rows() -> list[Row]:
    """A run in each language, a command, and a whole life, against the SDK's blocking calls."""
    with _loopback_modal():
        return _measured()


def _measured() -> list[Row]:
    import modal

    from nexus.adapters.providers.modal import ModalProvider
    from nexus.domain.provider import Limits, RunRequest, SandboxSpec, Template

    def spec() -> SandboxSpec:
        return SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation="bench",
            name="bench",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            limits=Limits(),
        )

    provider = ModalProvider()
    ours = provider.ensure(spec()).ref
    app = modal.App.lookup("nexus")
    image = modal.Image.debian_slim("3.12").build(app)
    theirs = modal.Sandbox.create("sleep", "3600", app=app, image=image, timeout=3600)

    def run(**fields: Any) -> Callable[[], None]:
        def call() -> None:
            result = provider.run(ours, RunRequest(uuid.uuid4().hex, timeout=30, **fields))
            assert result.exit_code == 0, result

        return call

    def bare(argv: Sequence[str]) -> Callable[[], None]:
        def call() -> None:
            process = theirs.exec(*argv, timeout=30)
            process.stdout.read()
            process.stderr.read()
            assert process.wait() == 0

        return call

    def life() -> None:
        provider.destroy(provider.ensure(spec()).ref)

    def bare_life() -> None:
        modal.Sandbox.create("sleep", "3600", app=app, image=image, timeout=3600).terminate(wait=True)

    try:
        table = [
            compare(f"modal: run {name} / bare SDK", run(language=language, code=code), bare(argv), PAIRS, BAR)
            for name, (language, code, argv) in RUNS.items()
        ]
        table.append(compare("modal: run a command / bare SDK", run(argv=("true",)), bare(("true",)), PAIRS, BAR))
        table.append(compare("modal: create and destroy / bare SDK", life, bare_life, PAIRS // 2))
        return table
    finally:
        provider.destroy(ours)
        theirs.terminate()
        provider.close()


if __name__ == "__main__":
    for row in rows():
        print(row)
