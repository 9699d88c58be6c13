"""Which tests open an event store, and on which database: read from their source, without running them.

A test reaches what its code names, and what that names in turn: fixtures by their parameters, functions and classes of
other modules of the tests, programs that it starts. Names count, not values; annotations and docstrings do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

OPENERS: Final = {
    "NexusFS", "open_engine", "open_store", "open_reading", "open_views", "wiring", "SQLiteStore", "SQLiteReading",
    "SQLiteViews", "PostgresStore", "PostgresReading", "PostgresViews", "StoreContract",
}  # fmt: skip
"""Names of the product by which a store is opened; `main` of the command line is another."""
PROGRAMS: Final = ("nexus.cli", "NexusFS", "SQLiteStore")
"""What a program in a string names when it opens a store."""
SERVERS: Final = {
    ("tests.support.postgres", name)
    for name in ("Server", "database", "private_server", "shared_server", "small_server")
}
"""Who reaches one of these has a database on Postgres."""


class Found(Enum):
    """What a test comes to."""

    STORE = "a store, wherever it is"
    POSTGRES = "a database on Postgres"


class Named(NamedTuple):
    """Something that code names: a name, a parameter, a text, or an attribute `of` a name."""

    kind: Literal["name", "parameter", "text", "attribute"]
    text: str
    of: str = ""


Node = tuple[str, str]
"""A module of the tests and a name at its top level; the name is empty for all of the module."""


@dataclass
class Module:
    """One file of the tests, as far as names go."""

    name: str
    path: Path
    defined: dict[str, ast.AST] = field(default_factory=dict)
    imported: dict[str, Node] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    deleted: dict[str, str] = field(default_factory=dict)
    """Names that a `del` takes out again, with what is said there: behind it, or right above."""

    def __post_init__(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        self.tree = ast.parse(text)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.append(node.module)
                    else:
                        self.imported[alias.asname or alias.name] = (node.module, alias.name)
        for statement in self.tree.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                self.defined[statement.name] = statement
            elif isinstance(statement, ast.Assign | ast.AnnAssign):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                self.defined |= {target.id: statement for target in targets if isinstance(target, ast.Name)}
            elif isinstance(statement, ast.Delete):
                said = _said(text.splitlines(), statement.lineno - 1)
                self.deleted |= {target.id: said for target in statement.targets if isinstance(target, ast.Name)}

    @property
    def tests(self) -> list[str]:
        """Names of its own tests; a class of tests is one."""
        kinds = {ast.FunctionDef: "test_", ast.ClassDef: "Test"}
        return [name for name, node in self.defined.items() if name.startswith(kinds.get(type(node), "\0"))]


class Tree:
    """All modules under `root/tests`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._paths = {self._name(path): path for path in sorted((root / "tests").rglob("*.py"))}
        self._modules: dict[str, Module] = {}

    def _name(self, path: Path) -> str:
        return ".".join(path.relative_to(self._root).with_suffix("").parts).removesuffix(".__init__")

    def module(self, name: str) -> Module:
        if name not in self._modules:
            self._modules[name] = Module(name, self._paths[name])
        return self._modules[name]

    def suites(self) -> list[Module]:
        """The modules that pytest collects."""
        return [self.module(name) for name, path in self._paths.items() if path.name.startswith("test_")]

    def reached(self, suite: Module, test: str) -> set[Found]:
        """What a test of this module comes to."""
        found: set[Found] = set()
        seen: set[Node] = set()
        ahead: list[Node] = [(suite.name, test), (suite.name, "pytestmark")]
        while ahead:
            place = ahead.pop()
            if place in seen:
                continue
            seen.add(place)
            if place in SERVERS:
                found.add(Found.POSTGRES)
            for target in self._edges(place, suite.name):
                if isinstance(target, Found):
                    found.add(target)
                else:
                    ahead.append(target)
        return found

    @cache  # noqa: B019 - a tree lives as long as the tests that ask it
    def _edges(self, place: Node, suite: str) -> set[Node | Found]:
        module, name = self.module(place[0]), place[1]
        if not name:
            named = _named(module.tree)
        elif name in module.defined:
            named = _named(module.defined[name])
        else:
            named = {Named("name", name)}  # somebody else's, handed on
        return {target for one in named for target in self._targets(place, one, self.module(suite))}

    def _targets(self, place: Node, named: Named, suite: Module) -> Iterator[Node | Found]:
        module = self.module(place[0])
        if named.kind == "text":
            if named.text in self._paths:
                yield (named.text, "")
            if any(program in named.text for program in PROGRAMS):
                yield Found.STORE
        elif named.kind == "attribute":
            source = ".".join(module.imported.get(named.of, ("", "")))
            if source in self._paths:
                yield (source, named.text)
        elif named.kind == "parameter":
            fixture = self._fixture(named.text, place, suite)
            if fixture is not None:
                yield fixture
        else:
            yield from self._of_name(module, named.text)

    def _of_name(self, module: Module, name: str) -> Iterator[Node | Found]:
        if name in module.defined:
            yield (module.name, name)
        elif name in module.imported:
            source, original = module.imported[name]
            if source.startswith("nexus"):
                if original in OPENERS or (source, original) == ("nexus.cli", "main"):
                    yield Found.STORE
            elif source in self._paths and f"{source}.{original}" not in self._paths:
                yield (source, original)
        else:
            for star in module.stars:
                if star in self._paths and name in self.module(star).defined:
                    yield (star, name)

    def _fixture(self, name: str, place: Node, suite: Module) -> Node | None:
        """Where pytest finds it: in the test's module, else in the nearest conftest. One may refine its namesake."""
        parts = suite.name.split(".")[:-1]
        folders = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        holders = [suite.name, *(f"{folder}.conftest" for folder in folders)]
        if place[1] == name and place[0] in holders:
            holders = holders[holders.index(place[0]) + 1 :]
        for holder in holders:
            if holder in self._paths:
                module = self.module(holder)
                if name in module.defined or name in module.imported:
                    return (holder, name)
                for star in module.stars:
                    if star in self._paths and name in self.module(star).defined:
                        return (star, name)
        return None


def _named(node: ast.AST) -> set[Named]:
    """What a definition names outside of itself; a function's own variables hide what is named so elsewhere."""
    found = set(_within(node))
    if isinstance(node, ast.FunctionDef):
        found -= {Named("name", one.arg) for one in ast.walk(node) if isinstance(one, ast.arg)}
        stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
        found -= {Named("name", one.id) for one in stored}
    return found


def _within(node: ast.AST) -> Iterator[Named]:
    for part, value in ast.iter_fields(node):
        if part in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            if isinstance(child, ast.Name):
                yield Named("name", child.id)
            elif isinstance(child, ast.arg):
                yield Named("parameter", child.arg)
            elif isinstance(child, ast.Constant):
                yield Named("text", str(child.value))
            elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
                yield Named("attribute", child.attr, of=child.value.id)
                yield Named("name", child.value.id)
            elif isinstance(child, ast.FunctionDef):
                yield from _named(child)
            elif isinstance(child, ast.AST):
                yield from _within(child)


def _said(lines: list[str], number: int) -> str:
    behind = lines[number].partition("#")[2].replace("noqa: F821", "").strip(" -")
    above = []
    while number > 0 and lines[number - 1].startswith(("#", "del ")):
        number -= 1
        if lines[number].startswith("#"):
            above.append(lines[number].strip("# "))
    return behind or " ".join(reversed(above))
