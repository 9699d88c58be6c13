"""`ModalProvider`: the provider port over Modal's SDK.

What Modal cannot do shows in `CAPABILITIES`. Its sandboxes end after 24 hours at most and their time-out cannot be
moved, so each gets the longest there is and our own expiry decides. A pause keeps the files, not the processes: it is
a snapshot of the file system, from which a resume makes a new sandbox of the next generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nexus.adapters.providers.modal import files, guest, lifecycle
from nexus.adapters.providers.modal.calls import Calls
from nexus.adapters.providers.modal.commands import Commands
from nexus.adapters.providers.modal.failures import CREDENTIALS_HINT
from nexus.adapters.providers.modal.naming import PROVIDER, TAG_INSTALLATION, TAG_SANDBOX, Handle
from nexus.adapters.providers.modal.session import Session, check_installed, credentials, setting
from nexus.domain.errors import (
    NexusError,
    ProviderError,
    ProviderGone,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
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

CAPABILITIES: Final = Capabilities(
    languages=guest.LANGUAGES,
    pause="filesystem",
    ref_survives_pause=False,
    lists_paused=False,
    native_ttl=False,
    max_ttl_seconds=lifecycle.MAX_LIFETIME,
    network=("full", "none"),
    limits=("memory_mb", "cpus"),
    gpu=True,
)
MONTH: Final = 30 * 24 * 3600
_CONNECT: Final = 10.0
"""Seconds at most for the first contact with Modal. The SDK itself would try for a minute where nobody listens."""


class ModalProvider:
    """See `nexus.domain.provider.Provider`. Nothing is imported, connected or looked up before the first call."""

    def __init__(
        self,
        *,
        token_id: str | None = None,
        token_secret: str | None = None,
        app_name: str = "nexus",
        environment: str | None = None,
        idle_timeout: int | None = None,
        snapshot_ttl: int | None = MONTH,
        request_timeout: float = 20.0,
        create_timeout: float = 120.0,
        build_timeout: float = 900.0,
        snapshot_timeout: int = 120,
    ) -> None:
        """All times are in seconds. `idle_timeout` lets Modal end a sandbox that nobody uses, `snapshot_ttl` is how
        long one can stay paused (None: for ever), and `build_timeout` is for the first use of an image.

        Raises `ConfigurationError` when the extra or the token is missing.
        """
        check_installed()
        token = credentials(token_id, token_secret)
        self._idle_timeout = idle_timeout
        self._snapshot_ttl = snapshot_ttl
        self._request_timeout = request_timeout
        self._create_timeout = create_timeout
        self._build_timeout = build_timeout
        self._snapshot_timeout = snapshot_timeout
        self._calls = Calls(lambda: Session(token, app_name, environment), min(request_timeout, _CONNECT))
        self._commands = Commands(self._calls, request_timeout)

    @classmethod
    def from_settings(cls, settings: Any) -> ModalProvider:
        """From `modal_token_id`, `modal_token_secret` and `modal_app_name` of a settings object or mapping."""
        return cls(
            token_id=setting(settings, "modal_token_id"),
            token_secret=setting(settings, "modal_token_secret"),
            app_name=setting(settings, "modal_app_name") or "nexus",
        )

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    # --- sandboxes ---------------------------------------------------------------------------------------------
    def ensure(self, spec: SandboxSpec) -> Observed:
        image = self._calls.do("build an image", lambda session: session.image(spec.template), self._build_timeout)
        return self._make(spec, lifecycle.Making(image, {**spec.template.env, **spec.env}, self._idle_timeout))

    def _make(self, spec: SandboxSpec, making: lifecycle.Making) -> Observed:
        try:
            handle, created = self._calls.do(
                "create a sandbox",
                lambda session: lifecycle.create(session, spec, making),
                self._create_timeout,
                changes=True,
            )
        except ProviderOutcomeUnknown as error:
            if spec.template.gpu and isinstance(error.__cause__, TimeoutError):
                raise  # the SDK ends what had to wait too long for a GPU, and may be about to do so
            # Its name tells whether it was made; that it cannot be found yet proves nothing.
            with contextlib.suppress(ProviderError):
                if (found := self._adopt(spec)) is not None:
                    return found
            raise
        return handle.seen("running", created, _notes(spec))

    def _adopt(self, spec: SandboxSpec) -> Observed | None:
        found = self._calls.do(
            "look for a sandbox", lambda session: lifecycle.adopt(session, spec), self._request_timeout
        )
        return None if found is None else found[0].seen("running", found[1], _notes(spec))

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        return self._listed({TAG_SANDBOX: sandbox_id, TAG_INSTALLATION: installation})

    def owned(self, installation: str) -> Iterator[Observed]:
        return iter(self._listed({TAG_INSTALLATION: installation}))

    def _listed(self, tags: Mapping[str, str]) -> list[Observed]:
        found = self._calls.do("list sandboxes", lambda session: lifecycle.listed(session, tags), self._create_timeout)
        return [handle.seen("running", created) for handle, created in found]

    def inspect(self, ref: Ref) -> Observed:
        handle = Handle.of(ref)
        if handle.paused:
            image = self._calls.do(
                "look at a snapshot", lambda session: session.snapshot(handle.image_id), self._request_timeout
            )
            return handle.seen("gone" if image is None else "paused")
        return handle.seen("running" if self._runs(handle) else "gone")

    def _runs(self, handle: Handle) -> bool:
        found = self._calls.do(
            "look at a sandbox", lambda session: session.look(handle.modal_id), self._request_timeout
        )
        return found is not None

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        """Modal's own deadline cannot be moved, and is as late as it can be; this only says whether it is gone."""
        if self.inspect(ref).condition == "gone":
            raise ProviderGone("The Modal sandbox has ended")

    def destroy(self, ref: Ref) -> bool:
        handle = Handle.of(ref)
        was_there = self._terminate(handle)
        if handle.paused:
            was_there = self.inspect(ref).condition == "paused"
            self._delete_snapshot(handle.image_id)
        elif handle.origin:
            self._delete_snapshot(handle.origin)
        return was_there

    def discard(self, sandbox_id: str, installation: str) -> int:
        return sum(self.destroy(seen.ref) for seen in self.find(sandbox_id, installation))

    def _terminate(self, handle: Handle) -> bool:
        return self._calls.do(
            "end a sandbox",
            lambda session: lifecycle.terminate(session, handle.modal_id),
            self._create_timeout,
            changes=True,
        )

    def _delete_snapshot(self, image_id: str) -> None:
        self._calls.do(
            "delete a snapshot",
            lambda session: session.delete_snapshot(image_id),
            self._request_timeout,
            changes=True,
        )

    # --- pause and resume --------------------------------------------------------------------------------------
    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        handle = Handle.of(ref)
        if handle.paused:
            if self.inspect(ref).condition == "gone":
                raise ProviderGone("The snapshot of this sandbox does not exist any more")
            self._terminate(handle)
            return ref
        code, _, err = self._commands.script(handle.modal_id, "keep the environment", guest.keep())
        if code != 0:
            raise ProviderError(f"The environment could not be kept: {err.decode(errors='replace').strip()}")
        image_id = self._commands.inside(
            handle.modal_id,
            "take a snapshot",
            lambda session: lifecycle.take_snapshot(
                session, handle.modal_id, self._snapshot_timeout, self._snapshot_ttl
            ),
            self._snapshot_timeout + self._request_timeout,
        )
        paused = Handle(handle.sandbox_id, handle.generation, handle.modal_id, image_id).ref
        save(paused)
        # What is saved is true from here on. A sandbox that cannot be ended now is ended by the next resume or
        # destroy of the saved ref, or as an orphan; raising would make the caller repeat what has happened.
        with contextlib.suppress(ProviderError):
            self._terminate(handle)
            if handle.origin:
                self._delete_snapshot(handle.origin)
        return paused

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        handle = Handle.of(ref)
        if not handle.paused:
            if not self._runs(handle):
                raise ProviderGone("The Modal sandbox has ended")
            return handle.seen("running")
        image = self._calls.do(
            "look at a snapshot", lambda session: session.snapshot(handle.image_id), self._request_timeout
        )
        if image is None:
            if (found := self._adopt(spec)) is not None:
                return found
            raise ProviderGone("The snapshot of this sandbox does not exist any more")
        self._terminate(handle)  # left over from a pause that was cut short: never two of one
        # The template's variables are in the snapshot, with those that the sandbox was given when it was made.
        return self._make(spec, lifecycle.Making(image, spec.env, self._idle_timeout, handle.image_id))

    # --- runs and files ----------------------------------------------------------------------------------------
    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        if request.session is not None:
            raise ProviderUnsupported("The modal provider keeps no sessions")
        return self._commands.run(self._running(ref).modal_id, request, on_output)

    def cancel(self, ref: Ref, execution_id: str) -> None:
        handle = Handle.of(ref)
        if handle.paused:
            return  # a snapshot has no processes
        with contextlib.suppress(ProviderGone):
            self._commands.kill(handle.modal_id, execution_id)

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        return files.read(self._commands, self._running(ref).modal_id, path, limit, self._request_timeout)

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        return files.write(self._commands, self._running(ref).modal_id, path, chunks, limit)

    @staticmethod
    def _running(ref: Ref) -> Handle:
        handle = Handle.of(ref)
        if handle.paused:
            raise ProviderNotRunning("The sandbox is paused")
        return handle

    # --- the provider itself -----------------------------------------------------------------------------------
    def diagnose(self) -> Sequence[Finding]:
        try:
            self._calls.do("answer", lambda session: session.hello(), self._request_timeout)
        except NexusError as error:
            return [Finding("modal", ok=False, detail=error.message, hint=error.hint or CREDENTIALS_HINT)]
        return [Finding("modal", ok=True, detail="Modal answers, and takes the token")]

    def close(self) -> None:
        self._calls.close()


def _notes(spec: SandboxSpec) -> tuple[str, ...]:
    """What Modal will not do although the spec asks for it."""
    notes = []
    asked = [name for name in ("processes", "disk_mb") if getattr(spec.limits, name) is not None]
    if asked:
        notes.append(f"Modal does not enforce: {', '.join(asked)}")
    if spec.expires_at > datetime.now(UTC) + timedelta(seconds=lifecycle.MAX_LIFETIME):
        notes.append("Modal ends every sandbox after 24 hours")
    return tuple(notes)
