"""Fixtures and settings of the contract suite."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol

import pytest

from nexus.domain.provider import (
    ExecutionResult,
    Observed,
    OutputSink,
    Provider,
    Ref,
    RunRequest,
    SandboxSpec,
    Stream,
    Template,
)

OpenProvider = Callable[[], Provider]


class MakeSpec(Protocol):
    """Makes a spec with a sandbox id of its own, and cleans up after it."""

    def __call__(self, *, ttl: float = ..., installation: str | None = ..., **fields: Any) -> SandboxSpec: ...


class ContractBase:
    """What a subclass must and may give.

    Must: the fixture `open_provider`, a function that opens the provider anew each time it is called, always on the
    same engine (two of them stand for two workers). May: the fixture `template`, and the settings below.
    """

    patience: ClassVar[float] = 30.0
    """Seconds that anything awaited may take."""
    overrun: ClassVar[float] = 2.0
    """Seconds that a run may take beyond its time-out."""
    refuses_repeats: ClassVar[bool] = True
    """The provider itself can make sure that an execution id runs once. False where the engine offers no way."""
    ttl_step: ClassVar[float] = 2.0
    """Seconds of the shortest deadline that the provider's own TTL can keep."""

    # --- fixtures to override --------------------------------------------------------------------------------------
    @pytest.fixture
    def open_provider(self) -> OpenProvider:
        pytest.fail("A subclass of ProviderContract needs the fixture `open_provider`")

    @pytest.fixture
    def template(self) -> Template:
        return Template()

    def deadline(self, provider: Provider, ref: Ref) -> datetime | None:
        """When the provider's engine will end the sandbox by itself; None where that cannot be observed."""
        return None

    # --- fixtures of the suite -------------------------------------------------------------------------------------
    @pytest.fixture
    def provider(self, open_provider: OpenProvider) -> Iterator[Provider]:
        provider = open_provider()
        yield provider
        provider.close()

    @pytest.fixture
    def other(self, open_provider: OpenProvider) -> Iterator[Provider]:
        """A second worker's."""
        provider = open_provider()
        yield provider
        provider.close()

    @pytest.fixture
    def installation(self) -> str:
        return f"contract-{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def make_spec(self, provider: Provider, installation: str, template: Template) -> Iterator[MakeSpec]:
        made: list[SandboxSpec] = []

        def make(*, ttl: float = 600, installation: str | None = installation, **fields: Any) -> SandboxSpec:
            sandbox_id = f"sb_{uuid.uuid4().hex}"
            assert installation is not None
            spec = SandboxSpec(
                sandbox_id=sandbox_id,
                generation=1,
                installation=installation,
                name=f"contract-{len(made)}",
                template=template,
                expires_at=datetime.now(UTC) + timedelta(seconds=ttl),
                limits=template.limits,
            )
            spec = replace(spec, **fields)
            made.append(spec)
            return spec

        yield make
        for spec in made:
            provider.discard(spec.sandbox_id, spec.installation)

    @pytest.fixture
    def sandbox(self, provider: Provider, make_spec: MakeSpec) -> Observed:
        return provider.ensure(make_spec())

    @pytest.fixture
    def background(self) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(max_workers=16) as pool:
            yield pool

    # --- ways to run -----------------------------------------------------------------------------------------------
    def request(self, code: str | bytes | None, language: str = "bash", **fields: Any) -> RunRequest:
        if isinstance(code, str):
            code = code.encode()
        values: dict[str, Any] = {"execution_id": new_execution_id(), "timeout": 30, **fields}
        return RunRequest(code=code, language=language, **values)

    def execute(
        self,
        provider: Provider,
        ref: Ref,
        code: str | bytes | None,
        language: str = "bash",
        *,
        on_output: OutputSink | None = None,
        **fields: Any,
    ) -> ExecutionResult:
        return provider.run(ref, self.request(code, language, **fields), on_output)

    def content(self, provider: Provider, ref: Ref, path: str) -> bytes:
        return b"".join(provider.read_file(ref, path, limit=1 << 26))

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until `condition()` is true."""
        end = time.monotonic() + self.patience
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < end, f"waited {self.patience} s in vain until {what}"
            pause.wait(0.02)

    def beats(self, provider: Provider, ref: Ref, name: str = "beat") -> int:
        """How often a process that appends to this file has done so."""
        result = self.execute(provider, ref, f"cat {name} 2>/dev/null | wc -c")
        assert result.exit_code == 0, result
        return int(result.stdout)

    def is_beating(self, provider: Provider, ref: Ref, name: str = "beat") -> bool:
        """Whether something appends to the file, as `BEATING` does every 0.05 s."""
        before = self.beats(provider, ref, name)
        threading.Event().wait(0.35)
        return self.beats(provider, ref, name) > before

    def assert_still(self, provider: Provider, ref: Ref) -> None:
        assert not self.is_beating(provider, ref), "something that should be dead still writes"


class Listener:
    """An `on_output` that remembers, and tells when something came."""

    def __init__(self) -> None:
        self.heard: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self.came = threading.Event()

    def __call__(self, stream: Stream, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.heard[stream] += data
        self.came.set()


def new_execution_id() -> str:
    return f"ex_{uuid.uuid4().hex}"


def done(future: Future[Any], within: float) -> Any:
    """The future's result; a stuck one fails the test instead of hanging it."""
    return future.result(timeout=within)


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


BEATING = "for i in {1..1200}; do echo -n x >> beat || exit; sleep 0.05; done"
"""Shell code whose life can be seen from outside. It ends with its folder, or after a minute: where a provider fails
these tests, nothing of them stays for long."""
