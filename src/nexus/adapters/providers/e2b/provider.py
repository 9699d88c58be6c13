"""`E2BProvider`: the provider port over E2B."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from nexus.adapters.providers.e2b import files, guest
from nexus.adapters.providers.e2b.control import GENERATION, INSTALLATION, LONGEST_TTL, SANDBOX, Control, is_paused
from nexus.adapters.providers.e2b.execution import Execution, cancel
from nexus.adapters.providers.e2b.faults import KEY_HINT, OUTAGE_HINT, translate
from nexus.domain.errors import (
    ConfigurationError,
    NexusError,
    ProviderAuth,
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import (
    Capabilities,
    ExecutionResult,
    Finding,
    Observed,
    OutputSink,
    Ref,
    RunRequest,
    SandboxSpec,
)

if TYPE_CHECKING:
    from e2b import Sandbox, SandboxInfo

CAPABILITIES: Final = Capabilities(
    languages=("python", "javascript", "bash"),
    pause="memory",
    ref_survives_pause=True,
    lists_paused=True,
    native_ttl=True,
    max_ttl_seconds=LONGEST_TTL,
    network=("full", "none"),
)
_SECOND: Final = timedelta(seconds=1)
_KEYS: Final = 5
"""Idempotency keys to try, should E2B answer one with a sandbox that has ended since, or never with any."""


class E2BProvider:
    """Sandboxes in E2B's cloud. Thread-safe.

    Pausing keeps memory and processes, without end; E2B itself ends a sandbox whose deadline has passed. Resources are
    those of the template. A run leaves behind what it puts into the background, as on any machine, unless it is
    cancelled or timed out: then all of it is killed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        template_id: str | None = None,
        *,
        domain: str | None = None,
        api_url: str | None = None,
        sandbox_url: str | None = None,
        request_timeout: float = 30.0,
        patience: float = 10.0,
    ) -> None:
        """`api_key` defaults to `E2B_API_KEY`, the addresses to E2B's own variables.

        `request_timeout` bounds each call of the control plane, in seconds. `patience` is how many seconds a run may be
        silent beyond its time-out, and for how long it is looked for when its connection broke, before its outcome is
        said to be unknown; and how long a create that seems to be under way elsewhere is waited for.

        Raises `ConfigurationError` without a key or without the `e2b` extra.
        """
        if find_spec("e2b") is None:
            raise ConfigurationError(
                "The e2b provider needs the e2b package", hint="Install it: pip install 'nexus-sandbox[e2b]'"
            )
        api_key = api_key or os.environ.get("E2B_API_KEY")
        if not api_key:
            raise ConfigurationError(
                "E2B API key required", hint="Set E2B_API_KEY; https://e2b.dev/dashboard?tab=keys shows your keys."
            )
        self._template = template_id or None
        # The SDK waits twice as long as it is told: its transport adds the read and the write time-out.
        self._seconds = request_timeout / 2
        self._patience = patience
        given = {"domain": domain, "api_url": api_url, "sandbox_url": sandbox_url}
        self._control = Control(
            api_key=api_key,
            request_timeout=self._seconds,
            **{name: value for name, value in given.items() if value},
        )

    @classmethod
    def from_settings(cls, settings: Any) -> E2BProvider:
        """From `e2b_api_key` and `e2b_template_id`."""
        return cls(settings.e2b_api_key, settings.e2b_template_id)

    @property
    def name(self) -> str:
        return "e2b"

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    # --- lifecycle -------------------------------------------------------------------------------------------------
    def ensure(self, spec: SandboxSpec) -> Observed:
        if spec.template.gpu is not None:
            raise ProviderUnsupported("The e2b provider has no GPUs")
        if (found := self._adopt(spec)) is not None:
            self._control.push(found, spec.expires_at)
            return replace(_observed(found), notes=_notes(spec))
        template = spec.template.template_id or self._template
        for attempt in range(_KEYS):
            try:
                e2b_id = self._control.create(spec, template, attempt)
            except ProviderUnavailable as refused:
                if refused.details.get("status") != 409:
                    raise
                made: SandboxInfo | None = self._await_other(spec)
            else:
                made = self._adopt(spec) or self._seen(e2b_id)
            if made is not None:
                self._control.set_deadline(made.sandbox_id, spec.expires_at)
                return replace(_observed(made), notes=_notes(spec))
        raise ProviderOutcomeUnknown("E2B: every sandbox made for this one ended at once, or was never seen")

    def _adopt(self, spec: SandboxSpec) -> SandboxInfo | None:
        """The sandbox of this id and generation. Of several the oldest stays; the others are ended."""
        found = self._control.list(
            **{
                SANDBOX: spec.sandbox_id,
                INSTALLATION: spec.installation,
                GENERATION: str(spec.generation),
            }
        )
        for extra in found[1:]:
            self._control.kill(extra.sandbox_id)
        return found[0] if found else None

    def _seen(self, e2b_id: str) -> SandboxInfo | None:
        try:
            return self._control.info(e2b_id)
        except ProviderGone:
            return None

    def _await_other(self, spec: SandboxSpec) -> SandboxInfo | None:
        """A create with the same key is under way, or E2B has lost its outcome: then nothing ever comes of the key.

        Which of the two it is, E2B says in a code that its SDK does not pass on.
        """
        until = time.monotonic() + self._patience
        while (found := self._adopt(spec)) is None and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        found = self._control.list(**{SANDBOX: sandbox_id, INSTALLATION: installation})
        return [_observed(info) for info in found]

    def inspect(self, ref: Ref) -> Observed:
        try:
            return _observed(self._control.info(_id(ref)))
        except ProviderGone:
            return Observed(ref=ref, sandbox_id=ref.data["sandbox_id"], condition="gone")

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        self._control.push(self._control.info(_id(ref)), expires_at)

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        e2b_id = _id(ref)
        if not is_paused(self._control.info(e2b_id)):
            self._control.pause(e2b_id)
        save(ref)
        return ref

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        info = self._control.info(_id(ref))
        if is_paused(info):
            self._control.resume(info.sandbox_id, spec.expires_at)
            info = self._control.info(info.sandbox_id)
        else:
            self._control.push(info, spec.expires_at)
        return _observed(info)

    def destroy(self, ref: Ref) -> bool:
        return self._control.kill(_id(ref))

    def discard(self, sandbox_id: str, installation: str) -> int:
        found = self._control.list(**{SANDBOX: sandbox_id, INSTALLATION: installation})
        return sum(self._control.kill(info.sandbox_id) for info in found)

    def owned(self, installation: str) -> Iterator[Observed]:
        return iter([_observed(info) for info in self._control.list(**{INSTALLATION: installation})])

    # --- runs ------------------------------------------------------------------------------------------------------
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        e2b_id = _id(ref)
        if request.session is not None:
            raise ProviderUnsupported("The e2b provider keeps no sessions")
        order = guest.order(request)
        keep_until = request.keep_until
        if keep_until is not None and self._control.lasts(e2b_id, keep_until - _SECOND):
            keep_until = None  # E2B counts whole seconds, and has been told in this one
        longest = datetime.now(UTC) + timedelta(seconds=request.timeout + 2 * self._patience)
        try:
            if keep_until is None or not self._control.lasts(e2b_id, longest):
                return self._execute(self._control.handle(e2b_id, keep_until=keep_until), request, order, on_output)
            with self._control.pushing(e2b_id, keep_until):
                return self._execute(self._control.handle(e2b_id), request, order, on_output)
        except ProviderAuth:
            # Nothing was started. A handle's token may be out of date: once more, with a new one.
            if not self._control.forget(e2b_id):
                raise
        return self._execute(self._control.handle(e2b_id, keep_until=keep_until), request, order, on_output)

    def _execute(
        self, sandbox: Sandbox, request: RunRequest, order: guest.Order, on_output: OutputSink | None
    ) -> ExecutionResult:
        def why_silent() -> ProviderGone | ProviderNotRunning | None:
            return self._control.why_silent(sandbox.sandbox_id)

        return Execution(sandbox, request, order, on_output, why_silent, self._patience).run()

    def cancel(self, ref: Ref, execution_id: str) -> None:
        e2b_id = _id(ref)
        try:
            cancel(self._control.handle(e2b_id), guest.token(execution_id), strict=True)
        except ProviderGone:
            return
        except NexusError:
            raise
        except Exception as error:
            fault = translate(error, "cancel a run", changes=True)
            if isinstance(fault, ProviderNotRunning):
                reason = self._control.why_silent(e2b_id)
                if isinstance(reason, ProviderGone):
                    return
                raise (reason or fault) from error
            raise fault from error

    # --- files -----------------------------------------------------------------------------------------------------
    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        e2b_id = _id(ref)
        sandbox = self._control.handle(e2b_id)
        return files.read(sandbox, path, limit, self._seconds, lambda: self._control.why_silent(e2b_id))

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        e2b_id = _id(ref)
        with files.collected(path, chunks, limit) as (source, size):
            sandbox = self._control.handle(e2b_id)
            files.write(sandbox, path, source, size, self._seconds, lambda: self._control.why_silent(e2b_id))
        return size

    # --- the rest --------------------------------------------------------------------------------------------------
    def diagnose(self) -> Sequence[Finding]:
        try:
            self._control.list(**{INSTALLATION: "doctor"})
        except ProviderAuth as refused:
            return [Finding("e2b", False, refused.message, KEY_HINT)]
        except ProviderError as error:
            return [Finding("e2b", False, error.message, OUTAGE_HINT)]
        return [Finding("e2b", True, "the API answers and takes the key")]

    def close(self) -> None:
        self._control.close()


def _id(ref: Ref) -> str:
    if ref.provider != "e2b" or ref.version != 1 or not {"id", "sandbox_id"} <= set(ref.data):
        raise ProviderInvalidRequest("Not a ref of the e2b provider, or of a newer version of it")
    return ref.data["id"]


def _notes(spec: SandboxSpec) -> tuple[str, ...]:
    """What E2B will not do although the spec asks for it."""
    asked = [field.name for field in fields(spec.limits) if getattr(spec.limits, field.name) is not None]
    return (f"E2B's template decides, not this sandbox's limits: {', '.join(asked)}",) if asked else ()


def _observed(info: SandboxInfo) -> Observed:
    sandbox_id = info.metadata.get(SANDBOX, "")
    generation = info.metadata.get(GENERATION, "")
    return Observed(
        ref=Ref(provider="e2b", data={"id": info.sandbox_id, "sandbox_id": sandbox_id}),
        sandbox_id=sandbox_id,
        condition="paused" if is_paused(info) else "running",
        generation=int(generation) if generation.isdecimal() else 1,
        created_at=info.started_at,
        ends_at=None if is_paused(info) else info.end_at,
    )
