"""The provider port: what a provider adapter promises, as values and one protocol.

An adapter makes the outside world match what the events say and reports what it saw; it never decides a state.
Everything is keyed by our own sandbox id. Errors are the `Provider*` family of `nexus.domain.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

Stream = Literal["stdout", "stderr"]
OutputSink = Callable[[Stream, bytes], None]
NetworkPolicy = Literal["full", "none"]
PauseKind = Literal["none", "filesystem", "memory"]
Condition = Literal["running", "paused", "gone"]
ExecutionMode = Literal["warm", "fresh"]

OUTPUT_CAP = 1024 * 1024
"""Bytes kept per output stream of a run; what is beyond is counted and dropped."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data. A command that needs what is missing is refused before an event is written."""

    languages: tuple[str, ...] = ("python", "javascript", "bash")
    pause: PauseKind = "none"
    """What survives a pause: nothing can be paused, the files, or the files and the running processes."""
    ref_survives_pause: bool = True
    lists_paused: bool = True
    native_ttl: bool = False
    """The provider itself ends a sandbox whose deadline has passed."""
    max_ttl_seconds: int | None = None
    network: tuple[NetworkPolicy, ...] = ("full", "none")
    limits: tuple[str, ...] = ()
    """Names of the `Limits` fields that it enforces."""
    gpu: bool = False
    stdin: bool = True
    files: bool = True
    sessions: tuple[str, ...] = ()
    """Languages whose runs may go on with the variables of earlier ones (`RunRequest.session`)."""
    argv: bool = True
    """Runs a command given as an argument list (`nexus sandbox exec`)."""
    own_templates: bool = True
    """A template name that no configuration declares may be an image or template id of the provider's own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one sandbox; None leaves the provider's own."""

    memory_mb: int | None = 1024
    cpus: float | None = None
    processes: int | None = 256
    disk_mb: int | None = 1024
    """Writable space of the sandbox in MiB; also the largest single file."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a sandbox is made from. One notion for all providers; each reads its own field."""

    name: str = "default"
    image: str | None = None
    """Docker image, or Modal registry image."""
    python: str | None = None
    """Local: path of the interpreter whose environment python code runs in; None is the provider's default."""
    template_id: str | None = None
    """E2B template id, or Modal image id."""
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)
    gpu: str | None = None
    pool: int | None = None
    """How many are kept ready, where the provider can do that; None is the installation's default."""
    declared: bool = True
    """Named in the configuration (or the default); else the name is the provider's own image or template id."""


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything an adapter needs to create one sandbox. `env` holds secrets: it reaches no event, log or error."""

    sandbox_id: str
    """`sb_` and 32 hexadecimal characters."""
    generation: int
    """Counts the resources made for one sandbox: 1 at create, one more at each resume that makes a new one."""
    installation: str
    """Id of the data folder or database; two installations on one engine never touch each other's resources."""
    name: str
    template: Template
    expires_at: datetime
    """When the provider may end the sandbox on its own account."""
    limits: Limits = field(default_factory=Limits)
    network: NetworkPolicy = "full"
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ref:
    """A provider's handle as a value: opaque to everyone else, JSON-able, versioned, stored in events."""

    provider: str
    data: Mapping[str, str]
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"provider": self.provider, "version": self.version, "data": dict(self.data)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ref:
        return cls(provider=value["provider"], data=dict(value["data"]), version=value.get("version", 1))


@dataclass(frozen=True, slots=True)
class Observed:
    """What an adapter saw of one resource."""

    ref: Ref
    sandbox_id: str
    condition: Condition
    generation: int = 1
    incarnation: str = ""
    """Changes when the processes inside were lost and started anew (a container restarted by hand); "" if unknown."""
    created_at: datetime | None = None
    ends_at: datetime | None = None
    """When the provider itself will end it; None where it does not say, or has no deadline."""
    notes: tuple[str, ...] = ()
    """What could not be enforced or is otherwise worth knowing, in words for the user."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One execution. Exactly one of `code` and `argv` is given."""

    execution_id: str
    timeout: int
    """Seconds after which everything that the run started is killed."""
    language: str = "python"
    code: bytes | None = None
    argv: tuple[str, ...] | None = None
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    mode: ExecutionMode = "warm"
    """`warm` may fork a warmed-up interpreter; `fresh` starts a new one."""
    session: str | None = None
    """Go on with the variables of the last run in the session of this name, which then stands still in between.

    Runs of a session come one after the other: one that comes during another raises `ProviderUnavailable`. A run that
    is killed, or kills itself, leaves the variables as they were before it. The first run begins the session, and so
    does one with mode `fresh`.
    """
    keep_until: datetime | None = None
    """A new, later deadline for providers that own one (as `extend`, in the same round trip where that is possible)."""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What came of a run that the adapter saw to its end. Failing code and time-outs are results, not errors."""

    exit_code: int
    """The program's own, or 128 + n for signal n; 124 when timed out."""
    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    """Bytes that the program wrote, those beyond the cap included."""
    stderr_bytes: int
    duration: float
    """Seconds."""
    timed_out: bool = False
    signal: int | None = None
    oom_killed: bool = False
    session_started: bool = False
    """The run was the first of its session, or that had lost its variables: it found none."""

    @property
    def truncated(self) -> bool:
        return self.stdout_bytes > len(self.stdout) or self.stderr_bytes > len(self.stderr)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `nexus doctor`."""

    check: str
    ok: bool
    detail: str
    hint: str = ""
    required: bool = True
    """False for what only degrades the service."""


@runtime_checkable
class Provider(Protocol):
    """One backend. Thread-safe; methods block; no method is called inside a database transaction."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def ensure(self, spec: SandboxSpec) -> Observed:
        """Create **or adopt** by (sandbox id, generation). Called twice, or by two at once: one resource."""
        ...

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        """Every resource that carries our id, oldest first; a half-made one is not reported.

        "Unreachable" is an exception, never an empty list.
        """
        ...

    def inspect(self, ref: Ref) -> Observed:
        """`running`, `paused`, or `gone` with proof. "Unreachable" is an exception, never `gone`."""
        ...

    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        """Run at most once. Output streams to `on_output` while it runs, up to the cap per stream.

        A time-out kills **every** process that the run started and keeps the partial output. When waiting is
        cut short (`KeyboardInterrupt`, an exception from `on_output`) the run is killed before the exception
        leaves. Raises `ProviderOutcomeUnknown` when the run may have happened but nobody knows how it ended.
        """
        ...

    def cancel(self, ref: Ref, execution_id: str) -> None:
        """The run and everything it started is dead when this returns. An unknown id is fine."""
        ...

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        """Push a later deadline to a provider that owns one; never shortens; a no-op elsewhere."""
        ...

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        """Pause; `save(ref)` is called when the state is durable and before anything is destroyed.

        Pausing what is paused is fine. Returns the ref to resume from.
        """
        ...

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        """Resume. The ref may change (see `Capabilities.ref_survives_pause`). Resuming what runs is fine."""
        ...

    def destroy(self, ref: Ref) -> bool:
        """Destroy with all it contains; paused ones too. False when it was not there; never raises for that."""
        ...

    def discard(self, sandbox_id: str, installation: str) -> int:
        """Destroy whatever carries our id, half-made resources included; returns how many there were."""
        ...

    def owned(self, installation: str) -> Iterator[Observed]:
        """Everything that this installation made, for the orphan sweep; half-made resources included."""
        ...

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        """The file's bytes in chunks. Paths resolve inside the guest only. More than `limit` bytes: InvalidInput."""
        ...

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        """Write (replace) a file, making parent folders; returns the bytes written."""
        ...

    def diagnose(self) -> Sequence[Finding]:
        """What `nexus doctor` says of this provider; never raises."""
        ...

    def close(self) -> None:
        """Release connections; sandboxes live on."""
        ...
