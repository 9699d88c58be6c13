"""The state folder of one sandbox: what is in it, who may change it, and whether its sandbox lives.

    <state>/<installation>/<sandbox id>.<generation>/
        alive         locked by the sandbox for as long as it lives: the one proof of life, whatever any pid says
        network       locked by the program that serves its network
        record.json   written when the sandbox is ready, before it is let go; a folder without one is half-made
        agent         the agent's unix socket
        log           what bubblewrap and the agent had to complain about

The folder itself is locked by whoever creates, pauses, resumes or destroys the sandbox.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from nexus.domain.errors import ProviderUnavailable

ALIVE, NETWORK, RECORD, SOCKET, LOG, PAUSED = "alive", "network", "record.json", "agent", "log", "paused"
_NAME = re.compile(r"(?P<sandbox>[A-Za-z0-9_-]{1,80})\.(?P<generation>[0-9]{1,9})")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = 1


@dataclass(frozen=True)
class Record:
    """What is known of a sandbox that was made; its secrets are not in it."""

    sandbox_id: str
    generation: int
    installation: str
    created_at: str
    """ISO 8601, UTC."""
    boot: str
    """The host's boot id: pids of another boot mean nothing."""
    pid: int
    """The agent's, on the host."""
    started: int
    """Its start time, as /proc counts."""
    namespace: int
    """Inode of its PID namespace."""
    cgroups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    version: int = _VERSION


def installation_folder(state: Path, installation: str) -> Path:
    """Where the sandboxes of one installation are; ids that make no good folder name are hashed."""
    if _PLAIN.fullmatch(installation):
        return state / installation
    return state / f".{hashlib.sha256(installation.encode()).hexdigest()[:32]}"


class Folder:
    """One sandbox's folder, which need not exist."""

    def __init__(self, state: Path, installation: str, sandbox_id: str, generation: int) -> None:
        self.installation = installation
        self.sandbox_id = sandbox_id
        self.generation = generation
        self.path = installation_folder(state, installation) / f"{sandbox_id}.{generation}"

    # --- who may change it ---

    @contextmanager
    def guarded(self, *, create: bool) -> Iterator[bool]:
        """Be the only one to change this sandbox. Yields False when there is no folder and `create` is not given."""
        guard = self._lock(create)
        try:
            yield guard is not None
        finally:
            if guard is not None:
                os.close(guard)

    def _lock(self, create: bool) -> int | None:
        while True:
            if create:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                guard = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if create:
                    continue  # removed under our hands
                return None
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(guard), self.path.stat()):
                    return guard
            except FileNotFoundError:
                pass
            os.close(guard)  # that was a folder which its last owner has removed meanwhile

    # --- whether its sandbox lives ---

    def alive(self, lock: str = ALIVE) -> bool:
        """The sandbox, or its network, holds its lock."""
        try:
            descriptor = os.open(self.path / lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def wait_until_dead(self, seconds: float, lock: str = ALIVE) -> bool:
        """Whether the lock came free in time."""
        end = time.monotonic() + seconds
        pause = 0.0005
        while self.alive(lock):
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        return True

    def lock_for_sandbox(self, lock: str = ALIVE) -> int:
        """A locked descriptor for the sandbox, or its network, to inherit.

        Raises ProviderUnavailable while something still holds it.
        """
        descriptor = os.open(self.path / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + 5
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise ProviderUnavailable(f"Something still holds sandbox {self.sandbox_id}") from None
                time.sleep(0.001)  # another process that just looked whether it lives

    # --- what is in it ---

    def record(self) -> Record | None:
        """The record, or None for a folder that is half-made or not there."""
        try:
            value = json.loads((self.path / RECORD).read_bytes())
            return Record(**{**value, "cgroups": tuple(value["cgroups"]), "notes": tuple(value["notes"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None

    def write_record(self, record: Record) -> None:
        """Durable in one step."""
        draft = self.path / f"{RECORD}.new"
        draft.write_text(json.dumps(asdict(record)))
        draft.rename(self.path / RECORD)

    @property
    def marked_paused(self) -> bool:
        return (self.path / PAUSED).exists()

    def mark_paused(self, paused: bool) -> None:
        if paused:
            (self.path / PAUSED).touch()
        else:
            (self.path / PAUSED).unlink(missing_ok=True)

    def complaints(self) -> str:
        """The last lines of the log."""
        try:
            return (self.path / LOG).read_text(errors="replace").strip()[-1000:]
        except FileNotFoundError:
            return ""

    def empty(self) -> None:
        """Remove what is in it; the folder, and with it the guard, stays."""
        for entry in self.path.iterdir():
            entry.unlink()

    def remove(self) -> None:
        """Remove it, and the installation's folder when it was the last."""
        self.empty()
        self.path.rmdir()
        try:
            self.path.parent.rmdir()
        except OSError:
            pass

    def data(self) -> Mapping[str, str]:
        """What a ref to this sandbox holds."""
        return {
            "installation": self.installation,
            "sandbox_id": self.sandbox_id,
            "generation": str(self.generation),
        }


def folders(state: Path, installation: str) -> list[Folder]:
    """Every sandbox folder of an installation, half-made ones too."""
    try:
        names = os.listdir(installation_folder(state, installation))  # noqa: PTH208
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        match = _NAME.fullmatch(name)
        if match:
            found.append(Folder(state, installation, match["sandbox"], int(match["generation"])))
    return found
