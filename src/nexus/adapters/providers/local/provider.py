"""The provider itself: the port's methods over folders, groups and the agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nexus.adapters.agent.client import AgentLink, AgentSilent
from nexus.adapters.agent.stream import connect_unix
from nexus.adapters.providers.local import bwrap, cgroups, diagnose, interpreters, launch, network, processes
from nexus.adapters.providers.local.folder import LOG, NETWORK, SOCKET, Folder, Record, folders
from nexus.domain.errors import (
    ConfigurationError,
    NexusError,
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderUnavailable,
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

_CONNECT_SECONDS = 5.0
_DEATH_SECONDS = 5.0
_OWN_END_SECONDS = 1.0


class LocalProvider:
    """Sandboxes below `state_dir`, one folder each. `python` is the interpreter of templates that name none."""

    name = "local"

    def __init__(self, state_dir: Path, *, python: str | None = None) -> None:
        self._state = Path(state_dir).absolute()
        self._python = python

    @classmethod
    def from_settings(cls, settings: Any) -> LocalProvider:
        """From an object with `data_dir` and `local_python`."""
        return cls(Path(settings.data_dir) / "local", python=settings.local_python or None)

    @property
    def capabilities(self) -> Capabilities:
        languages = ["python"]
        languages += ["javascript"] if interpreters.node() else []
        languages += ["bash"] if interpreters.bash() else []
        return Capabilities(
            languages=tuple(languages),
            pause="memory",
            native_ttl=True,
            network=("full", "none") if network.program() else ("none",),
            limits=diagnose.enforced_limits(),
            sessions=("python",),
            own_templates=False,
        )

    # --- coming and going ---

    def ensure(self, spec: SandboxSpec) -> Observed:
        """See `Provider.ensure`. ConfigurationError when bubblewrap or the interpreter is missing."""
        if bwrap.program() is None:
            raise ConfigurationError("bubblewrap is not installed", hint="apt-get install bubblewrap")
        python = interpreters.interpreter(spec.template.python or interpreters.default_python(self._python))
        folder = Folder(self._state, spec.installation, spec.sandbox_id, spec.generation)
        try:
            with folder.guarded(create=True):
                record = folder.record()
                if record is None or not folder.alive():
                    self._clear(folder, record)
                    try:
                        record = launch.launch(folder, spec, python)
                    except BaseException:
                        self._clear(folder, None)
                        folder.remove()
                        raise
                return self._observed(folder, record)
        except OSError as error:
            raise ProviderError(f"The sandbox could not be made: {error}") from error

    def find(self, sandbox_id: str, installation: str) -> Sequence[Observed]:
        """See `Provider.find`."""
        found = []
        for folder in folders(self._state, installation):
            record = folder.record() if folder.sandbox_id == sandbox_id else None
            if record is not None and folder.alive():
                found.append(self._observed(folder, record))
        return sorted(found, key=lambda observed: observed.generation)

    def owned(self, installation: str) -> Iterator[Observed]:
        """See `Provider.owned`. What has died but not been cleared away is reported as gone."""
        for folder in folders(self._state, installation):
            yield self._observed(folder, folder.record())

    def inspect(self, ref: Ref) -> Observed:
        """See `Provider.inspect`."""
        folder = self._folder(ref)
        return self._observed(folder, folder.record())

    def destroy(self, ref: Ref) -> bool:
        """See `Provider.destroy`."""
        return self._destroy(self._folder(ref))

    def discard(self, sandbox_id: str, installation: str) -> int:
        """See `Provider.discard`."""
        return sum(self._destroy(x) for x in folders(self._state, installation) if x.sandbox_id == sandbox_id)

    def _destroy(self, folder: Folder) -> bool:
        with folder.guarded(create=False) as there:
            if not there:
                return False
            record = folder.record()
            was_there = record is None or folder.alive()
            self._clear(folder, record)
            folder.remove()
            return was_there

    def _clear(self, folder: Folder, record: Record | None) -> None:
        """Leave nothing of a sandbox but its folder, empty. The caller guards it."""
        groups = self._groups(folder, record)
        if folder.alive():
            groups.thaw()
            if record is None or not processes.kill_agent(record):
                # Half-made ones end themselves, unless they were killed in the wrong places.
                folder.wait_until_dead(_OWN_END_SECONDS)
            elif not folder.wait_until_dead(_DEATH_SECONDS):
                groups.kill()
        if folder.alive() or not folder.wait_until_dead(_OWN_END_SECONDS, NETWORK):
            processes.kill_started_for(folder.path / LOG)
        if not folder.wait_until_dead(_DEATH_SECONDS) or not groups.remove():
            raise ProviderUnavailable(f"Sandbox {folder.sandbox_id} does not die; try again")
        folder.empty()

    # --- pausing ---

    def pause(self, ref: Ref, save: Callable[[Ref], None]) -> Ref:
        """See `Provider.pause`: every process stands still, memory and files stay."""
        folder = self._folder(ref)
        with folder.guarded(create=False):
            self._still(folder, self._living(folder))
            save(ref)
        return ref

    def _still(self, folder: Folder, record: Record) -> None:
        groups = self._groups(folder, record)
        if groups.can_freeze:
            stopped = groups.freeze()
        else:
            folder.mark_paused(True)
            stopped = processes.stop_all(record)
        if not stopped:
            self._wake(folder, record)
            raise ProviderUnavailable("Some process of the sandbox could not be stopped; it runs on")

    def resume(self, spec: SandboxSpec, ref: Ref) -> Observed:
        """See `Provider.resume`."""
        folder = self._folder(ref)
        with folder.guarded(create=False):
            record = self._living(folder)
            if not self._is_paused(folder, record):
                self.extend(ref, spec.expires_at)
                return self._observed(folder, record)
            # Sent before it wakes: the agent looks at what was said to it before it looks at its deadline.
            with self._link(folder) as link:
                sent = link.extend_later(spec.expires_at)
                self._wake(folder, record)
                sent()
            return self._observed(folder, record)

    def _wake(self, folder: Folder, record: Record) -> None:
        groups = self._groups(folder, record)
        if groups.can_freeze:
            groups.thaw()
        else:
            processes.continue_all(record)
            folder.mark_paused(False)

    # --- using ---

    def run(self, ref: Ref, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        """See `Provider.run`. An agent that does not answer in time is ended, and all of the run with it."""
        folder = self._folder(ref)
        with self._connected(folder) as link:
            try:
                return link.run(request, on_output)
            except AgentSilent:
                return self._silent(folder, link, request)
            except BaseException as error:
                if link.broken and folder.alive():
                    # The agent ends what a lost client ran, in its own time; this waits until it has.
                    with contextlib.suppress(NexusError):
                        self.cancel(ref, request.execution_id)
                if isinstance(error, ProviderOutcomeUnknown) and not folder.alive():
                    raise ProviderOutcomeUnknown("The sandbox ended while the code ran") from error
                raise

    def _silent(self, folder: Folder, link: AgentLink, request: RunRequest) -> ExecutionResult:
        record = folder.record()
        if record is not None and self._is_paused(folder, record):
            raise ProviderOutcomeUnknown("The sandbox was paused while the code ran")
        if record is not None:
            processes.kill_agent(record)
        raise ProviderOutcomeUnknown("The sandbox did not answer and was ended: nothing of the run is left")

    def cancel(self, ref: Ref, execution_id: str) -> None:
        """See `Provider.cancel`. A paused sandbox is woken for it: its programs cannot die otherwise."""
        folder = self._folder(ref)
        record = folder.record()
        if record is None or not folder.alive():
            return
        if not self._is_paused(folder, record):
            with self._link(folder) as link:
                link.cancel(execution_id)
            return
        with folder.guarded(create=False):
            self._wake(folder, record)
            try:
                with self._link(folder) as link:
                    link.cancel(execution_id)
            finally:
                self._still(folder, record)

    def extend(self, ref: Ref, expires_at: datetime) -> None:
        """See `Provider.extend`."""
        with self._connected(self._folder(ref)) as link:
            link.extend(expires_at)

    def time_left(self, ref: Ref) -> float | None:
        """Seconds until the sandbox ends on its own account."""
        with self._connected(self._folder(ref)) as link:
            return link.time_left()

    def read_file(self, ref: Ref, path: str, *, limit: int) -> Iterator[bytes]:
        """See `Provider.read_file`. Relative paths start at the home folder."""
        link = self._connected(self._folder(ref))
        try:
            chunks = link.read_file(path, limit)
        except BaseException:
            link.close()
            raise
        return _closing(link, chunks)

    def write_file(self, ref: Ref, path: str, chunks: Iterable[bytes], *, limit: int) -> int:
        """See `Provider.write_file`. Relative paths start at the home folder."""
        with self._connected(self._folder(ref)) as link:
            return link.write_file(path, chunks, limit)

    # --- the rest ---

    def diagnose(self) -> Sequence[Finding]:
        """See `Provider.diagnose`."""
        return diagnose.findings(self._state, interpreters.default_python(self._python))

    def close(self) -> None:
        """Nothing is kept open."""

    def _folder(self, ref: Ref) -> Folder:
        data = ref.data
        try:
            return Folder(self._state, data["installation"], data["sandbox_id"], int(data["generation"]))
        except (KeyError, ValueError):
            raise ProviderInvalidRequest("This is no ref of the local provider") from None

    def _living(self, folder: Folder) -> Record:
        record = folder.record()
        if record is None or not folder.alive():
            raise ProviderGone(f"Sandbox {folder.sandbox_id} is gone")
        return record

    def _connected(self, folder: Folder) -> AgentLink:
        """A link to the agent of a sandbox that runs."""
        record = self._living(folder)
        if self._is_paused(folder, record):
            raise ProviderNotRunning(f"Sandbox {folder.sandbox_id} is paused")
        return self._link(folder)

    def _link(self, folder: Folder) -> AgentLink:
        try:
            return AgentLink(connect_unix(os.fspath(folder.path), SOCKET, _CONNECT_SECONDS))
        except OSError as error:
            if not folder.alive():
                raise ProviderGone(f"Sandbox {folder.sandbox_id} is gone") from None
            raise ProviderUnavailable(f"The sandbox's agent does not answer: {error}") from error

    def _groups(self, folder: Folder, record: Record | None) -> cgroups.Groups:
        if record is not None:
            return cgroups.Groups(tuple(Path(path) for path in record.cgroups))
        name = launch.group_name(folder)
        return cgroups.Groups(tuple(path for parent in cgroups.parents() if (path := parent / name).exists()))

    def _is_paused(self, folder: Folder, record: Record) -> bool:
        groups = self._groups(folder, record)
        if groups.can_freeze:
            return groups.frozen
        return folder.marked_paused and processes.is_stopped(record)

    def _observed(self, folder: Folder, record: Record | None) -> Observed:
        ref = Ref(self.name, folder.data())
        if record is None:
            return Observed(ref, folder.sandbox_id, "gone", folder.generation, notes=("half-made",))
        alive = folder.alive()
        return Observed(
            ref=ref,
            sandbox_id=folder.sandbox_id,
            condition=("paused" if self._is_paused(folder, record) else "running") if alive else "gone",
            generation=folder.generation,
            incarnation=f"{record.boot}-{record.pid}-{record.started}",
            created_at=datetime.fromisoformat(record.created_at).astimezone(UTC),
            notes=record.notes,
        )


def _closing(link: AgentLink, chunks: Iterator[bytes]) -> Iterator[bytes]:
    with link:
        yield from chunks
