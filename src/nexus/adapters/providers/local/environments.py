"""Python environments of local templates: a virtual environment with the packages of a requirements file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from nexus.domain.errors import InvalidInput, OperationFailed
from nexus.domain.validation import shown

_LINES = 5
"""Of what pip says last, in an error."""


def build_environment(folder: Path, requirements: Path) -> None:
    """Make the environment anew; when that fails, the one that was there is put back.

    Raises InvalidInput for a missing file, OperationFailed with pip's last lines when the packages cannot be had.
    """
    if not requirements.is_file():
        raise InvalidInput(f"There is no requirements file {shown(str(requirements))}", field="file")
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # A virtual environment names its own path, so it is made where it will be; what is there is put aside first.
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input",
              "install", "-r", str(requirements)])  # fmt: skip
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-_LINES:])
        raise OperationFailed(f"The Python environment could not be built: {said}")
