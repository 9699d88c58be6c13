"""E2B: what our adapter adds to the SDK's own call, on a loopback E2B in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from scripts.bench_parts._measure import Row, compare

ROOT = Path(__file__).parents[2]
BAR = 1.3
CODE = {
    "python": ("print(6 * 7)", "python3 -c 'print(6 * 7)'"),
    "javascript": ("console.log(6 * 7)", "node -e 'console.log(6 * 7)'"),
    "bash": ("echo $((6 * 7))", "bash -c 'echo $((6 * 7))'"),
}


@contextmanager
def _loopback() -> Iterator[None]:
    """A loopback E2B, with this process's environment leading the SDK there."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cloud.e2b"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
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
    """One row for each language: a run through the adapter, deadline pushed, against `commands.run` of the SDK."""
    from e2b import Sandbox

    from nexus.adapters.providers.e2b import E2BProvider
    from nexus.domain.provider import RunRequest, SandboxSpec, Template

    with ExitStack() as stack:
        stack.enter_context(_loopback())
        provider = E2BProvider()
        stack.callback(provider.close)
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation="bench",
            name="bench",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
        )
        ref = provider.ensure(spec).ref
        stack.callback(provider.destroy, ref)
        bare = Sandbox.connect(ref.data["id"], timeout=600)

        def ours(language: str) -> None:
            request = RunRequest(
                execution_id=f"ex_{uuid.uuid4().hex}",
                timeout=30,
                language=language,
                code=CODE[language][0].encode(),
                keep_until=datetime.now(UTC) + timedelta(minutes=10),
            )
            assert provider.run(ref, request).stdout == b"42\n"

        def theirs(language: str) -> None:
            assert bare.commands.run(CODE[language][1], timeout=30).stdout == "42\n"

        return [
            compare(
                f"e2b: {language} run, adapter / commands.run",
                partial(ours, language),
                partial(theirs, language),
                n=40,
                bar=BAR,
            )
            for language in CODE
        ]
