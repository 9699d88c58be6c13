"""Which parts of the host a sandbox needs to run its languages: found there, bound read-only at the same paths."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nexus.domain.errors import ConfigurationError

SYSTEM = Path("/usr")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_INSTALL = {"javascript": "apt-get install nodejs", "bash": "apt-get install bash"}
PROGRAMS: Mapping[str, str] = {"python": "python3", "javascript": "node", "bash": "bash"}
DEFAULT_TEMPLATE = Path("share/nexus/templates/default/bin/python")
"""Below `sys.prefix`: the interpreter of the environment with pandas and numpy that set-up makes."""


@dataclass(frozen=True)
class Interpreter:
    """A python and the folder trees that it lives in, those below /usr left out."""

    path: str
    trees: tuple[str, ...]


def default_python(configured: str | None) -> str:
    """The interpreter for templates that name none."""
    if configured:
        return configured
    prepared = Path(sys.prefix) / DEFAULT_TEMPLATE
    return str(prepared) if prepared.exists() else sys.executable


@functools.lru_cache(maxsize=64)
def interpreter(path: str) -> Interpreter:
    """Look at an interpreter without running it. ConfigurationError when it is none that can be used."""
    program = Path(path)
    if not program.is_absolute():
        found = shutil.which(path)
        program = Path(found) if found else program.absolute()
    if not os.access(program, os.X_OK) or program.is_dir():
        raise ConfigurationError(
            f"There is no python interpreter at {path}", hint="Set local_python, or `python` of the template, to one."
        )
    with program.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            raise ConfigurationError(
                f"{path} is not a python interpreter but a script",
                hint="Name the interpreter itself: what `import sys; print(sys.executable)` prints in it.",
            )
    prefixes = {program.parent.parent, program.resolve().parent.parent}
    settings = program.parent.parent / "pyvenv.cfg"
    if settings.is_file():
        for line in settings.read_text(errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip().lower() == "home":
                prefixes.add(Path(value.strip()).parent)
                prefixes.add(Path(value.strip()).resolve().parent)
    return Interpreter(str(program), trees(prefixes))


def trees(prefixes: set[Path]) -> tuple[str, ...]:
    """The outermost of these folders that a sandbox does not have anyway.

    ConfigurationError for one that would show too much.
    """
    outside = {prefix for prefix in prefixes if not _in_system(prefix)}
    for prefix in outside:
        if len(prefix.parts) < 3:
            raise ConfigurationError(
                f"An interpreter in {prefix} cannot be used: all of {prefix} would be seen from inside the sandbox",
                hint="Use a virtual environment, or an interpreter in a folder of its own.",
            )
    return tuple(sorted(str(x) for x in outside if not any(y in x.parents for y in outside)))


def _in_system(path: Path) -> bool:
    return path == SYSTEM or SYSTEM in path.parents or path == Path("/")


@functools.cache
def system_binds() -> tuple[str, ...]:
    """bubblewrap arguments for /usr and what belongs to it: links on a merged system, folders on an older one."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _MERGED:
        folder = Path("/") / name
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    return tuple(arguments)


@functools.cache
def node() -> Interpreter | None:
    """The host's node, if it has one that a sandbox can be given."""
    return _program("node")


@functools.cache
def bash() -> Interpreter | None:
    return _program("bash")


def _program(name: str) -> Interpreter | None:
    found = shutil.which(name)
    if found is None:
        return None
    path = Path(found).resolve()
    if _in_system(path) or any(path.is_relative_to(Path("/") / folder) for folder in _MERGED):
        return Interpreter(found if _in_system(Path(found)) else str(path), ())
    try:
        return Interpreter(str(path), trees({path.parent.parent}))
    except ConfigurationError:
        return None


def install_hint(language: str) -> str:
    """The command that installs a language's interpreter."""
    return _INSTALL.get(language, "")
