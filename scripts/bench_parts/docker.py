"""The Docker provider against what the engine itself takes: plain exec, create and start, `rm -f`, over its socket.

Runs on a private engine that lives as long as the measurement, so nothing of this machine's Docker is touched.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).parents[2]))  # the private engine is test support

from nexus import LocalBackend, NexusFS
from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.provider import Limits, Ref, RunRequest, SandboxSpec, Template
from nexus.domain.values import system_principal
from nexus.domain.warm_pool import MemberSpec
from scripts.bench_parts._measure import Call, Row, alone, compare
from tests.support.dockerd import Engine, shared_engine
from tests.support.dockerd_images import default_image

CODE = "print(1)"
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
INSTALLATION = f"bench-{uuid.uuid4().hex[:12]}"
_numbers = itertools.count()


class Raw:
    """The engine's own operations with nothing in between: one request after another on its socket."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._socket = str(engine.socket)
        self._image = image
        self._link = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        link = http.client.HTTPConnection("localhost")
        link.sock = socket.socket(socket.AF_UNIX)
        link.sock.connect(self._socket)
        return link

    def ask(self, method: str, path: str, body: object = None) -> Any:
        self._link.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._link.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data) if data else None

    def create(self, *command: str) -> str:
        made = self.ask("POST", "/containers/create", {"Image": self._image, "Cmd": command, "User": "0"})
        self.ask("POST", f"/containers/{made['Id']}/start")
        return str(made["Id"])

    def remove(self, container: str) -> None:
        self.ask("DELETE", f"/containers/{container}?force=1&v=1")

    def execute(self, container: str, *command: str) -> None:
        wanted = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        made = self.ask("POST", f"/containers/{container}/exec", wanted)["Id"]
        link = self._connect()
        link.request("POST", f"/exec/{made}/start", "{}", {"Content-Type": "application/json"})
        output = link.getresponse().read()
        link.close()
        if b"1\n" not in output or self.ask("GET", f"/exec/{made}/json")["ExitCode"] != 0:
            raise RuntimeError(f"exec of {command} went wrong: {output!r}")


def spec(limits: Limits | None = None) -> SandboxSpec:
    return SandboxSpec(
        sandbox_id=f"sb_{uuid.uuid4().hex}",
        generation=1,
        installation=INSTALLATION,
        name="bench",
        template=Template(),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        limits=limits or Limits(),
    )


def request(language: str, code: str, timeout: int = 30, **more: Any) -> RunRequest:
    return RunRequest(f"ex_bench{next(_numbers)}", timeout, language, code.encode(), **more)


def rows() -> list[Row]:
    with ExitStack() as stack:
        engine = stack.enter_context(shared_engine())
        image = default_image(engine)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-bench-")))
        provider = DockerProvider(engine.host, image=image, folder=folder / "agents")
        stack.callback(provider.close)
        stack.callback(_discard_all, provider)
        raw = Raw(engine, image)
        other = raw.create("sleep", "infinity")
        stack.callback(raw.remove, other)
        ref = provider.ensure(spec()).ref
        return [
            *_runs(provider, ref, raw, other),
            *_whole(engine, image, folder, raw, other),
            *_lives(provider, raw),
            _whole_from_the_pool(engine, image, folder, raw),
            _overrun(provider),
        ]


def _discard_all(provider: DockerProvider) -> None:
    for seen in list(provider.owned(INSTALLATION)):
        provider.destroy(seen.ref)


def _runs(provider: DockerProvider, ref: Ref, raw: Raw, other: str) -> list[Row]:
    def ours(language: str, code: str, **more: Any) -> Call:
        return lambda: _checked(provider.run(ref, request(language, code, **more)).stdout)

    def theirs(*command: str) -> Call:
        return lambda: raw.execute(other, *command)

    python = theirs("python3", "-c", CODE)
    return [
        compare("run python: provider port / raw docker exec", ours("python", CODE), python, 60, 0.15),
        compare("run python, fresh interpreter / raw docker exec", ours("python", CODE, mode="fresh"), python, 30),
        compare("run bash / raw docker exec", ours("bash", "echo 1"), theirs("bash", "-c", "echo 1"), 30, 0.15),
        compare(
            "run javascript / raw docker exec",
            ours("javascript", "console.log(1)"),
            theirs("node", "-e", "console.log(1)"),
            20,
        ),
    ]


def _checked(output: bytes) -> None:
    if output != b"1\n":
        raise RuntimeError(f"a run printed {output!r}")


def _whole(engine: Engine, image: str, folder: Path, raw: Raw, other: str) -> Iterator[Row]:
    """What a caller of the library waits for, events included."""
    settings = {"DOCKER_HOST": engine.host, "NEXUS_DOCKER_IMAGE": image}
    with (
        mock.patch.dict(os.environ, settings),
        NexusFS(
            backend=LocalBackend(), data_dir=str(folder / "data"), sandbox_provider="docker", auto_cleanup=False
        ) as nx,
    ):
        sandbox_id = nx.sandbox_create("bench")["sandbox_id"]
        try:
            yield compare(
                "run python: sandbox_run / raw docker exec",
                lambda: nx.sandbox_run(sandbox_id, "python", CODE) and None,
                lambda: raw.execute(other, "python3", "-c", CODE),
                60,
                0.2,
            )
        finally:
            nx.sandbox_stop(sandbox_id)


def _lives(provider: DockerProvider, raw: Raw) -> Iterator[Row]:
    def create_ours() -> Callable[[], object]:
        ref = provider.ensure(spec()).ref
        return lambda: provider.destroy(ref)

    def create_theirs() -> Callable[[], object]:
        container = raw.create("python3", "-c", "import time; time.sleep(1000)")
        return lambda: raw.remove(container)

    yield compare("create / raw create + start", create_ours, create_theirs, 16, 1.15)
    yield _from_the_pool(provider, create_theirs)
    turns, warm_up = 16, 2
    with _stock(turns + warm_up, provider, raw) as (refs, containers):
        yield compare(
            "stop / raw rm -f",
            lambda: provider.destroy(refs.pop()) and None,
            lambda: raw.remove(containers.pop()),
            turns,
            1.15,
            warm_up=warm_up,
        )
    sandbox = spec()
    ref = provider.ensure(sandbox).ref
    container = raw.create("sleep", "infinity")

    def pause_ours() -> None:
        provider.pause(ref, lambda _ref: None)
        provider.resume(sandbox, ref)

    def pause_theirs() -> None:
        raw.ask("POST", f"/containers/{container}/pause")
        raw.ask("POST", f"/containers/{container}/unpause")

    yield compare("pause + resume / raw pause + unpause", pause_ours, pause_theirs, 12)
    raw.remove(container)


def _from_the_pool(provider: DockerProvider, create_theirs: Call) -> Row:
    """At the port; the member is made outside of the clock, as a worker would."""

    def member() -> MemberSpec:
        wanted = spec()
        return MemberSpec(f"pm_{uuid.uuid4().hex}", INSTALLATION, wanted.template, wanted.expires_at, wanted.limits)

    refs = [provider.prepare(member())]

    def create_ours() -> Callable[[], object]:
        sandbox = spec()
        provider.kind(sandbox.template, sandbox.limits, sandbox.network)  # what the engine asks first
        ref = provider.adopt(sandbox, refs.pop()).ref

        def clean() -> None:
            provider.destroy(ref)
            refs.append(provider.prepare(member()))

        return clean

    row = compare("create from the warm pool / raw create + start", create_ours, create_theirs, 16, 0.1)
    for seen in provider.pooled(INSTALLATION):
        provider.withdraw(seen.member_id, INSTALLATION)
    return row


def _whole_from_the_pool(engine: Engine, image: str, folder: Path, raw: Raw) -> Row:
    """What a caller of the library waits for, the events of the taking included."""
    settings = {"DOCKER_HOST": engine.host, "NEXUS_DOCKER_IMAGE": image, "NEXUS_POOL_SIZE": "1"}
    with (
        mock.patch.dict(os.environ, settings),
        NexusFS(
            backend=LocalBackend(), data_dir=str(folder / "warm"), sandbox_provider="docker", auto_cleanup=False
        ) as nx,
    ):
        pool = nx.engine.pool

        def ours() -> Callable[[], object]:
            sandbox_id = nx.sandbox_create(f"bench-{next(_numbers)}")["sandbox_id"]

            def clean() -> None:
                nx.sandbox_stop(sandbox_id)
                pool.tend()

            return clean

        def theirs() -> Callable[[], object]:
            container = raw.create("python3", "-c", "import time; time.sleep(1000)")
            return lambda: raw.remove(container)

        pool.tend()
        try:
            return compare("create from the warm pool: sandbox_create / raw create + start", ours, theirs, 12)
        finally:
            pool.drain(system_principal())


@contextmanager
def _stock(count: int, provider: DockerProvider, raw: Raw) -> Iterator[tuple[list[Ref], list[str]]]:
    """Sandboxes and containers to remove."""
    refs = [provider.ensure(spec()).ref for _ in range(count)]
    containers = [raw.create("sleep", "infinity") for _ in range(count)]
    yield refs, containers
    for container in containers:
        raw.remove(container)


def _overrun(provider: DockerProvider) -> Row:
    """How long past its time-out a fork bomb lives: the whole call, less the second that it was given."""
    ref = provider.ensure(spec(Limits(processes=128))).ref

    def bomb() -> None:
        if not provider.run(ref, request("python", FORK_BOMB, 1)).timed_out:
            raise RuntimeError("the fork bomb ended by itself")

    row = alone("time-out of 1 s under a fork bomb, in all", bomb, 5, 2000.0, warm_up=0)
    provider.destroy(ref)
    return row
