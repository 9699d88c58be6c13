"""Where the files of fake sandboxes are: in memory, or in real folders for behaviours that run real programs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Protocol


def inside(path: str) -> PurePosixPath:
    """The path relative to the sandbox's home; `..` stops at its root, as it does in any root folder."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            del parts[-1:]
        elif part not in {"/", "."}:
            parts.append(part)
    return PurePosixPath(*parts)


class FileStore(Protocol):
    """Files by resource id and path. `read` raises FileNotFoundError or IsADirectoryError."""

    def home(self, resource_id: str) -> Path | None:
        """The real folder behind it, if there is one."""
        ...

    def read(self, resource_id: str, path: str) -> bytes: ...

    def write(self, resource_id: str, path: str, data: bytes) -> None: ...

    def copy(self, source: str, target: str) -> None: ...

    def drop(self, resource_id: str) -> None: ...


class MemoryFiles:
    """Files in a dict: fast, gone with the process."""

    def __init__(self) -> None:
        self._files: dict[str, dict[PurePosixPath, bytes]] = {}

    def home(self, resource_id: str) -> Path | None:
        return None

    def read(self, resource_id: str, path: str) -> bytes:
        files, where = self._files.get(resource_id, {}), inside(path)
        if where in files:
            return files[where]
        if any(where in other.parents for other in files):
            raise IsADirectoryError(path)
        raise FileNotFoundError(path)

    def write(self, resource_id: str, path: str, data: bytes) -> None:
        files, where = self._files.setdefault(resource_id, {}), inside(path)
        if where == PurePosixPath() or any(where in other.parents for other in files):
            raise IsADirectoryError(path)
        files[where] = data

    def copy(self, source: str, target: str) -> None:
        self._files[target] = dict(self._files.get(source, {}))

    def drop(self, resource_id: str) -> None:
        self._files.pop(resource_id, None)


class FolderFiles:
    """Files in one real folder per resource. It keeps API paths inside that folder, symbolic links included."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def home(self, resource_id: str) -> Path:
        home = self._root / resource_id
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _locate(self, resource_id: str, path: str) -> Path:
        home = self.home(resource_id).resolve()
        target = (home / inside(path)).resolve()
        if target != home and home not in target.parents:
            raise FileNotFoundError(path)
        return target

    def read(self, resource_id: str, path: str) -> bytes:
        return self._locate(resource_id, path).read_bytes()

    def write(self, resource_id: str, path: str, data: bytes) -> None:
        target = self._locate(resource_id, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def copy(self, source: str, target: str) -> None:
        shutil.copytree(self.home(source), self.home(target), symlinks=True, dirs_exist_ok=True)

    def drop(self, resource_id: str) -> None:
        for _ in range(3):
            # A program of the sandbox that is just being killed may still add files under our hands.
            shutil.rmtree(self._root / resource_id, ignore_errors=True)
            if not os.path.lexists(self._root / resource_id):
                return
