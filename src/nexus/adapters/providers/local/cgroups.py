"""Control groups of one sandbox, version 1 or 2, where this process may make them: common limits, and the freezer.

Made below the caller's own groups, so whatever limits an administrator put on the caller hold for its sandboxes too.
Version 2 allows no groups below one that holds processes: there they go beside the caller's.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nexus.domain.provider import Limits

_ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "pids", "freezer", "cpu")
_CPU_PERIOD = 100_000
_FREEZE_SECONDS = 5.0
_REMOVE_SECONDS = 5.0


@dataclass(frozen=True)
class Groups:
    """The groups of one sandbox. `paths` are the folders; version 2 has one for everything."""

    paths: tuple[Path, ...]

    @property
    def exists(self) -> bool:
        return any(path.exists() for path in self.paths)

    def has(self, controller: str) -> bool:
        """Whether the controller works on the sandbox."""
        return self._with(_FILE[controller][0]) is not None or self._with(_FILE[controller][1]) is not None

    def limit(self, memory: int | None, processes: int | None, cpus: float | None) -> list[str]:
        """Set limits: bytes, processes, CPUs. Returns the names of the `Limits` fields that could not be set."""
        wanted = {
            "memory_mb": None if memory is None else (("memory.max", memory), ("memory.limit_in_bytes", memory)),
            "processes": None if processes is None else (("pids.max", processes), ("pids.max", processes)),
            "cpus": None
            if cpus is None
            else (
                ("cpu.max", f"{int(cpus * _CPU_PERIOD)} {_CPU_PERIOD}"),
                ("cpu.cfs_quota_us", int(cpus * _CPU_PERIOD)),
            ),
        }
        missing = []
        for name, choices in wanted.items():
            if choices is not None and not any(self._write(file, str(value)) for file, value in choices):
                missing.append(name)
        if memory is not None:
            self._write("memory.swap.max", "0")
            self._write("memory.memsw.limit_in_bytes", str(memory))
        return missing

    def add(self, pid: int) -> None:
        """Move a process in; raises OSError when it cannot be."""
        for path in self.paths:
            (path / "cgroup.procs").write_text(str(pid))

    def open_oom_counters(self) -> list[int]:
        """Descriptors of files with an `oom_kill` line."""
        found = []
        for path in self.paths:
            for name in ("memory.events", "memory.oom_control"):
                try:
                    found.append(os.open(path / name, os.O_RDONLY | os.O_CLOEXEC))
                except OSError:
                    continue
        return found

    # --- the freezer ---

    @property
    def can_freeze(self) -> bool:
        return self._with("cgroup.freeze") is not None or self._with("freezer.state") is not None

    @property
    def frozen(self) -> bool:
        """Frozen, or on the way there."""
        return self._read("cgroup.freeze") == "1" or self._read("freezer.self_freezing") == "1"

    def freeze(self) -> bool:
        """Stop every process; whether all did in time. One that does not will stop as soon as it can."""
        if not (self._write("cgroup.freeze", "1") or self._write("freezer.state", "FROZEN")):
            return False
        end = time.monotonic() + _FREEZE_SECONDS
        while True:
            if self._read("freezer.state") == "FROZEN" or "frozen 1" in (self._read("cgroup.events") or ""):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)

    def thaw(self) -> None:
        if not self._write("cgroup.freeze", "0"):
            self._write("freezer.state", "THAWED")

    # --- the end ---

    def pids(self) -> list[int]:
        """Every process inside, as the host numbers them."""
        found: set[int] = set()
        for path in self.paths:
            try:
                found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
            except OSError:
                continue
        return sorted(found)

    def kill(self) -> None:
        """SIGKILL to every process inside; thawed first, since a frozen one would wait with its death."""
        self.thaw()
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def remove(self) -> bool:
        """Remove the groups; whether all are gone. Fails while a process is inside."""
        end = time.monotonic() + _REMOVE_SECONDS
        left = [path for path in self.paths if path.exists()]
        pause = 0.0005
        while left:
            for path in list(left):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    continue  # busy: its last process is not quite gone yet
                left.remove(path)
            if left and time.monotonic() > end:
                return False
            if left:
                time.sleep(pause)
                pause = min(pause * 2, 0.02)
        return True

    # --- files ---

    def _with(self, name: str) -> Path | None:
        return next((path / name for path in self.paths if (path / name).exists()), None)

    def _write(self, name: str, value: str) -> bool:
        file = self._with(name)
        if file is None:
            return False
        try:
            file.write_text(value)
        except OSError:
            return False
        return True

    def _read(self, name: str) -> str | None:
        file = self._with(name)
        try:
            return file.read_text().strip() if file else None
        except OSError:
            return None


_FILE: Mapping[str, tuple[str, str]] = {
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "pids": ("pids.max", "pids.max"),
    "cpu": ("cpu.max", "cpu.cfs_quota_us"),
    "freezer": ("cgroup.freeze", "freezer.state"),
}


def make(name: str, limits: Limits) -> Groups:
    """Groups called `name`, as many as this process may make: possibly none."""
    controllers = [*_V1[:3], *(("cpu",) if limits.cpus is not None else ())]
    paths = []
    for parent in parents(controllers):
        try:
            (parent / name).mkdir(exist_ok=True)
        except OSError:
            continue
        paths.append(parent / name)
    return Groups(tuple(paths))


def parents(controllers: Sequence[str] = _V1, root: Path = _ROOT, own: str | None = None) -> list[Path]:
    """The folders to make groups in: one for each controller of version 1, or the one of version 2."""
    membership = (own if own is not None else Path("/proc/self/cgroup").read_text()).splitlines()
    found = []
    for line in membership:
        _, names, path = line.split(":", 2)
        for controller in names.split(","):
            folder = root / controller / path.lstrip("/")
            if controller in controllers and os.access(folder, os.W_OK):
                found.append(folder)
        if not names and (root / "cgroup.controllers").exists():
            found += _version_2(root / path.lstrip("/"), root)
    return found


def _version_2(own: Path, root: Path) -> list[Path]:
    """The nearest group from the caller's parent upward that hands controllers down and may be written."""
    candidates = (
        [own] if own == root else [folder for folder in own.parents if folder == root or root in folder.parents]
    )
    for folder in candidates:
        try:
            handed_down = set((folder / "cgroup.subtree_control").read_text().split())
        except OSError:
            continue
        if (
            os.access(folder, os.W_OK)
            and os.access(folder / "cgroup.procs", os.W_OK)
            and {"memory", "pids"} <= handed_down
        ):
            return [folder]
    return []
