"""The suite that runs every hostile program against a provider: subclass it, and give it `open_provider`."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from nexus.domain.provider import ExecutionResult, Limits, Observed, Provider, RunRequest, SandboxSpec, Template
from nexus.testing.hostile import PROGRAMS
from nexus.testing.hostile.program import Hostile, judge
from nexus.testing.hostile.prying import HOST_PORT, HOST_SECRET, HOST_SOCKET

_CLEAN = "chmod 755 ~ ; cd / ; rm -rf /home/user/* /home/user/.??* /tmp/* /tmp/.??* /dev/shm/* ; true"
_HEARTBEAT = "while echo x >> beat; do sleep 0.05; done"


@dataclass
class Arena:
    """A sandbox that takes it all, a neighbour that must not notice, and things on the host to be found."""

    provider: Provider
    spec: SandboxSpec
    observed: Observed
    neighbour: Observed
    host: Mapping[str, str]
    successors: list[str] = field(default_factory=list)
    """Programs after which the sandbox had to be made anew."""

    def run(self, code: bytes, language: str, timeout: int, stdin: bytes = b"") -> ExecutionResult:
        request = RunRequest(f"ex_{uuid.uuid4().hex}", timeout, language, code, stdin=stdin, env=self.host)
        return self.provider.run(self.observed.ref, request)


class HostileSuite:
    """Must be given: the fixture `open_provider`, a function that opens the provider. May be given: what follows."""

    template: ClassVar[Template] = Template()
    limits: ClassVar[Limits] = Limits(memory_mb=256, processes=64, disk_mb=64)
    memory_growth: ClassVar[int] = 24
    """MiB by which the manager may grow at its peak: the two capped streams, twice, and what the allocator keeps."""

    @pytest.fixture(scope="class")
    @classmethod
    def open_provider(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Provider]:
        pytest.fail("A subclass of HostileSuite needs the fixture `open_provider`")

    @pytest.fixture(scope="class")
    @classmethod
    def arena(cls, open_provider: Callable[[], Provider], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
        provider = open_provider()
        installation = f"hostile-{uuid.uuid4().hex[:12]}"
        secret = tmp_path_factory.mktemp("host") / "secret"
        secret.write_text("the host's")
        with _listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, _listening(socket.AF_UNIX, f"\0{installation}"):
            spec = cls.spec(installation, "target")
            neighbour_spec = cls.spec(installation, "neighbour")
            try:
                host = {
                    HOST_PORT: str(tcp.getsockname()[1]),
                    HOST_SOCKET: installation,
                    HOST_SECRET: str(secret),
                }
                neighbour = provider.ensure(neighbour_spec)
                arena = Arena(provider, spec, provider.ensure(spec), neighbour, host)
                with _canary() as canary:
                    yield arena
                    assert canary.poll() is None, "a process of the host was killed"
                answer = provider.run(neighbour.ref, RunRequest("ex_last", 10, "bash", b"echo well"))
                assert answer.stdout == b"well\n", "a neighbouring sandbox was hurt"
            finally:
                for each in (spec, neighbour_spec):
                    provider.discard(each.sandbox_id, installation)
                provider.close()

    @classmethod
    def spec(cls, installation: str, name: str) -> SandboxSpec:
        return SandboxSpec(
            sandbox_id=f"sb_{uuid.uuid4().hex}",
            generation=1,
            installation=installation,
            name=name,
            template=cls.template,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            limits=cls.limits,
        )

    @pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
    def test_is_contained(self, arena: Arena, program: Hostile) -> None:
        if program.language not in arena.provider.capabilities.languages:
            pytest.fail(f"the provider has no {program.language} here: install it to test it")
        before = _reset_peak()
        begun = time.monotonic()
        result = arena.run(program.source, program.language, program.timeout, program.stdin)
        elapsed = time.monotonic() - begun
        judge(program, result, elapsed)
        assert _peak() - before <= self.memory_growth * 1024, "the manager's memory grew"
        self.assert_usable(arena)
        if program.stills:
            self.assert_still(arena, program.stills)
        assert arena.run(_CLEAN.encode(), "bash", 20).exit_code == 0

    def assert_usable(self, arena: Arena) -> None:
        """The sandbox still takes a run of each kind."""
        for language, code in (("python", b"print('alive')"), ("bash", b"echo alive")):
            result = arena.run(code, language, 10)
            assert (result.exit_code, result.stdout) == (0, b"alive\n"), result

    def assert_still(self, arena: Arena, path: str) -> None:
        """Nothing appends to the file any more."""
        sizes = f"wc -c < {path}; sleep 0.2; wc -c < {path}"
        first, second = arena.run(sizes.encode(), "bash", 10).stdout.split()
        assert int(first) > 0, "the program never did what it should be stopped from"
        assert first == second, "a process of the run lives on"


@contextmanager
def _listening(family: int, address: object) -> Iterator[socket.socket]:
    """A server of the host's that greets whoever connects."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)  # type: ignore[arg-type]
        server.listen()
        thread = threading.Thread(target=_greet, args=(server,), daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)  # closing alone would leave the thread in accept
        thread.join()


def _greet(server: socket.socket) -> None:
    try:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.send(b"the host")
    except OSError:
        return


@contextmanager
def _canary() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host's, of this user."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        try:
            yield process
        finally:
            process.kill()


def _reset_peak() -> int:
    """Forget this process's peak of memory; returns what it uses now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
