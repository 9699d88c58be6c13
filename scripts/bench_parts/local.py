"""The local provider at its port, beside the raw operation: a plain interpreter on the host, and bubblewrap by hand."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nexus.adapters.providers.local import LocalProvider, interpreters
from nexus.domain.provider import Observed, Ref, RunRequest, SandboxSpec, Template
from scripts.bench_parts._measure import Row, alone, compare

_RUNS, _CREATES, _NODES = 60, 25, 25
_BWRAP = (
    "bwrap", "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib",
    "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev",
)  # fmt: skip


def rows() -> list[Row]:
    """Create, run in each language and mode, pause with resume, destroy."""
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder:
        bench = _Bench(LocalProvider(Path(folder)))
        try:
            return bench.rows()
        finally:
            bench.close()


class _Bench:
    def __init__(self, provider: LocalProvider) -> None:
        self._provider = provider
        self._made: list[SandboxSpec] = []
        self._python = interpreters.interpreter(interpreters.default_python(None)).path
        self._ref = self._create().ref

    def rows(self) -> list[Row]:
        plain = self._process(self._python, "-c", "print(1)")
        node = self._process(shutil.which("node") or "node", "-e", "console.log(1)")
        python = b"print(1)"
        return [
            compare("run python / python -c", self._run("python", python), plain, _RUNS, 0.6),
            compare(
                "run python, fresh interpreter / python -c", self._run("python", python, "fresh"), plain, _RUNS, 1.2
            ),
            compare(
                "run python in a session / python -c", self._run("python", python, session="bench"), plain, _RUNS, 0.35
            ),
            compare("run bash / python -c", self._run("bash", b"echo 1"), plain, _RUNS, 0.3),
            compare("run node / node -e", self._run("javascript", b"console.log(1)"), node, _NODES, 1.2),
            compare(
                "run python / python -c in a bubblewrap of its own", self._run("python", python), self._wrapped(), _RUNS
            ),
            compare("create / python -c", self._create_once("full"), plain, _CREATES, 3.5),
            compare("create without network / python -c", self._create_once("none"), plain, _CREATES, 3.5),
            alone("pause and resume", self._pause_and_resume, _CREATES),
            alone("destroy", self._destroy_once(), _CREATES),
        ]

    def close(self) -> None:
        for spec in self._made:
            self._provider.discard(spec.sandbox_id, spec.installation)

    def _create(self, network: str = "full") -> Observed:
        spec = SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation="bench",
            name="bench",
            template=Template(),
            expires_at=datetime.now(UTC) + timedelta(minutes=10),
            network="none" if network == "none" else "full",
        )
        self._made.append(spec)
        return self._provider.ensure(spec)

    def _run(self, language: str, code: bytes, mode: str = "warm", session: str | None = None) -> Callable[[], None]:
        def run() -> None:
            request = RunRequest(
                f"ex_{uuid.uuid4().hex}",
                30,
                language,
                code,
                mode="fresh" if mode == "fresh" else "warm",
                session=session,
            )
            result = self._provider.run(self._ref, request)
            assert result.stdout == b"1\n", result

        return run

    def _create_once(self, network: str) -> Callable[[], Callable[[], object]]:
        def create() -> Callable[[], object]:
            ref: Ref = self._create(network).ref
            return lambda: self._provider.destroy(ref)

        return create

    def _destroy_once(self) -> Callable[[], Callable[[], object]]:
        refs = [self._create().ref]

        def destroy() -> Callable[[], object]:
            self._provider.destroy(refs.pop())
            return lambda: refs.append(self._create().ref)

        return destroy

    def _pause_and_resume(self) -> None:
        self._provider.pause(self._ref, lambda ref: None)
        self._provider.resume(self._made[0], self._ref)

    def _wrapped(self) -> Callable[[], None]:
        return self._process(*_BWRAP, "--", "/usr/bin/python3", "-c", "print(1)")

    @staticmethod
    def _process(*command: str) -> Callable[[], None]:
        arguments: Sequence[str] = command

        def run() -> None:
            done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
            assert done.stdout == b"1\n", done

        return run
