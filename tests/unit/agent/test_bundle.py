"""The guest's program runs where there is nothing of Nexus and an old Python."""

from __future__ import annotations

import ast
import marshal
import sys
from pathlib import Path

import pytest

import nexus.adapters.agent.guest as guest
from nexus.adapters.agent import bundle

FILES = sorted(Path(guest.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_syntax_is_that_of_python_3_9(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_is_imported_but_the_standard_library_and_the_guest(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.startswith(bundle.PACKAGE) or name.partition(".")[0] in sys.stdlib_module_names, name


def test_every_module_is_bundled_after_what_it_needs() -> None:
    assert {file.stem for file in FILES} - {"__init__", "relay"} == set(bundle.MODULES)
    for place, name in enumerate(bundle.MODULES):
        tree = ast.parse((Path(guest.__file__).parent / f"{name}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(bundle.PACKAGE):
                last = node.module.removeprefix(bundle.PACKAGE).strip(".")
                for needed in [last] if last else [alias.name for alias in node.names]:
                    assert bundle.MODULES.index(needed) < place, f"{name} needs {needed}"


def test_source_and_code_are_both_in_it() -> None:
    _, modules = marshal.loads(bundle.program())
    assert [name for name, _, _ in modules] == list(bundle.MODULES)
    for _, source, code in modules:
        assert compile(source, "guest", "exec").co_names == marshal.loads(code).co_names


def test_each_argument_and_variable_fits() -> None:
    arguments, variables = bundle.container_command({"socket": "/run/x"})
    assert all(len(word) < 128 * 1024 for word in (*arguments, *variables.values()))
