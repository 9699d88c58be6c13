"""The local provider for a user without any privilege: its contract and the hostile programs, run as one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
ROOT = Path(__file__).parents[3]
SUITES = [
    "tests/contract/test_local_provider.py",
    "tests/faults/test_hostile_local.py",
    "tests/integration/local/test_survival.py",
]


def interpreter() -> str:
    """A python of this version that any user can run, which one below root's home is not."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if Path(path).exists() and _as_nobody([path, "-c", ""]).returncode == 0:
            return path
    pytest.fail(f"This test needs a {version} that every user can run: apt-get install {version}")


def _as_nobody(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    try:
        return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=280, **who)
    except PermissionError as error:
        return subprocess.CompletedProcess(command, 126, "", str(error))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of that user's, below folders that it may enter."""
    base = Path("/var/tmp") / f"nexus-{os.getpid()}-{tmp_path.name}"
    base.mkdir(mode=0o755)
    if os.getuid() == 0:
        os.chown(base, NOBODY, NOBODY)
    return base


@pytest.mark.timeout(300)
@pytest.mark.parametrize("suite", SUITES, ids=["contract", "hostile programs", "survival"])
def test_as_nobody(suite: str, place: Path) -> None:
    packages = os.pathsep.join([str(ROOT / "src"), str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    command = [interpreter(), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={place}/tests", suite]
    try:
        done = _as_nobody(command, PYTHONPATH=packages, HOME=str(place))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert " passed" in done.stdout
        assert "skipped" not in done.stdout
    finally:
        shutil.rmtree(place, ignore_errors=True)
