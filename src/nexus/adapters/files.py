"""The files that agents read and write through the facade: a folder on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from nexus.domain.errors import InvalidInput, NotFound
from nexus.domain.validation import shown


class LocalBackend:
    """Files under one root folder; `/workspace/data/sales.csv` is that path below the root.

    `root` None means the `files` folder of the installation's data folder. Nothing outside the root is ever
    reached: `..` and links that lead out are refused with `InvalidInput`.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root is not None else None

    def bind(self, data_dir: Path) -> None:
        """Use the data folder's default place where no root was given."""
        if self.root is None:
            self.root = data_dir / "files"

    def _path(self, path: str) -> Path:
        if self.root is None:
            raise InvalidInput("This LocalBackend has no root folder", hint="Give LocalBackend(root=...).")
        if not path.strip("/") or "\0" in path:
            raise InvalidInput(f"The path {shown(path)} is not allowed", field="path")
        root = self.root.resolve()
        resolved = (root / path.lstrip("/")).resolve()
        if not resolved.is_relative_to(root):
            raise InvalidInput(f"The path {shown(path)} leads out of the backend's folder", field="path")
        return resolved

    def read(self, path: str) -> bytes:
        """The file's bytes; `NotFound` when there is no such file."""
        try:
            return self._path(path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"File {shown(path)} not found", path=path) from None

    def write(self, path: str, content: bytes | str) -> int:
        """Write or replace a file, making parent folders; returns the bytes written."""
        data = content.encode() if isinstance(content, str) else content
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed, so that a reader never sees half a file.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".nexus-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return len(data)
