"""The repository keeps its shape: links, folders that say what they are for, pinned requirements, decisions."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import nexus

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "nexus"
MODULES = sorted(SOURCE.rglob("*.py"))
PACKAGES = sorted(path.parent for path in MODULES if path.name == "__init__.py")
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
LONGEST = 350
BANNED_WORDS = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --- code ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["domain", "adapters", "projections"])
def test_the_architecture_is_visible_at_the_top(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == SOURCE / name


def test_every_folder_of_code_is_a_package() -> None:
    assert {path.parent for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_a_package_says_what_lives_in_it_and_what_never_may(package: Path) -> None:
    said = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    sentences = re.findall(r"[.:](?:\s|$)", said)
    assert len(sentences) >= 2, "a package's docstring says what lives there, and what may never come in"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_one_thing_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module begins by saying what it is"
    assert text.count("\n") <= LONGEST, "is it one thing?"
    words = set(re.split(r"[_.]", path.stem)) | set(path.relative_to(SOURCE).parts[:-1])
    assert not words & BANNED_WORDS, "a name says what is in it"


def test_the_public_names() -> None:
    assert nexus.__all__ == sorted(nexus.__all__)
    for name in nexus.__all__:
        assert getattr(nexus, name) is not None
    assert nexus.__version__ == project()["project"]["version"]


# --- tests -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_no_test_can_be_skipped(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not used & {"skip", "skipif", "xfail", "importorskip", "SkipTest"}


# --- requirements ----------------------------------------------------------------------------------------------------
def pins(path: Path) -> dict[str, set[str]]:
    """Package to versions: one, or several for different Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=!~; ]", each, maxsplit=1)[0].lower().replace("_", "-") for each in requirements}
    return found - {project()["project"]["name"]}


@pytest.mark.parametrize("path", LOCKS, ids=relative)
def test_requirements_are_pinned_hashed_and_from_nowhere_in_particular(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.sub(r" *\\\n +", " ", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)).strip().splitlines()
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9._-]+==\S+( ; [^-]+?)?( --hash=sha256:[0-9a-f]{64})+", entry), entry


def test_requirements_follow_the_project() -> None:
    """`scripts/lock` was run after the last change of dependencies."""
    table = project()
    extras = [each for extra in table["project"]["optional-dependencies"].values() for each in extra]
    wanted = names(table["project"]["dependencies"]) | names(extras)
    runtime, dev = pins(ROOT / "requirements" / "runtime.txt"), pins(ROOT / "requirements" / "dev.txt")
    assert wanted <= set(runtime), "run scripts/lock"
    assert names(table["dependency-groups"]["dev"]) <= set(dev), "run scripts/lock"
    assert runtime.items() <= dev.items(), "one environment has to hold both"
    assert pins(ROOT / "requirements" / "build.txt").items() <= dev.items()


# --- scripts and decisions -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["demo", "test", "lint", "bench", "setup", "lock", "check-wheel"])
def test_scripts_run(name: str) -> None:
    script = ROOT / "scripts" / name
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


def test_ci_runs_what_everybody_runs() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert 'exec scripts/test "$@"' in ci.read_text(encoding="utf-8")


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    pages = {path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in folder.glob("0*.md")}
    index = re.findall(
        r"^- \[(\d{4})\]\((\S+)\) (.+)$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [number for number, _, _ in index] == sorted(number for number, _, _ in index)
    assert {name for _, name, _ in index} == set(pages), "docs/adr/README.md lists every page"
    for number, name, title in index:
        assert name.startswith(f"{number}-")
        assert pages[name] == f"# {number} \N{EM DASH} {title}"
