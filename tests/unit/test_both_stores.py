"""Whatever opens a store works on both: each test that opens one runs over Postgres, too, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.support.reach import Found, Module, Tree

ROOT: Final = Path(__file__).parents[2]
OVER_POSTGRES: Final = "tests.integration.postgres"
SAME: Final = f"{OVER_POSTGRES}.same"
"""Tests that were written for the embedded store, imported into modules whose fixtures are on Postgres. Its conftest
sees to it that none of them opens the embedded one there."""

ELSEWHERE: Final = {
    "tests.contract.test_event_store": "the contract of stores: over Postgres in test_postgres_store",
    "tests.integration.sqlite": "the embedded store's file; the same questions to Postgres: tests/integration/postgres",
    "tests.unit.audit.test_verify": "what can be done to a file; to tables on a server: same/test_audit_tampering",
    "tests.faults.test_kill_on_every_provider": "what a kill leaves at a provider; what it leaves in the store: "
    "same/test_kill_every_step, and with Docker test_kill_pool",
    "tests.integration.clouds.test_faults": "what a cloud's fault becomes; the events of it over Postgres: "
    "same/test_engine_commands and same/test_engine_recovery",
    "tests.integration.providers.test_one_script": "how the four providers differ; the same script on one of them over "
    "Postgres: same/test_seed_python",
}
"""Modules or folders that open a store and run over the embedded one alone, and where Postgres is asked the same."""

WHAT_TO_DO: Final = """\
{test}
opens a store, and runs over the embedded one alone. Let it run over Postgres, too, in one of these ways:
- tests/integration/postgres/same/: a module with `from {module} import *`. Its conftest has the same fixtures on
  Postgres; one of your own asks for `database`, which is None for the embedded store (tests/conftest.py).
- parametrise it over both, with `tests.support.postgres.database()`.
- It makes no sense on Postgres: `del {name}` in that module, with a comment that says why; or, for a
  whole module, a line in ELSEWHERE here.
"""


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(ROOT)


def runs_again(tree: Tree) -> dict[str, set[str]]:
    """By module: the tests that run again over Postgres, and those of which it is said why they do not."""
    found: dict[str, set[str]] = {}
    for suite in tree.suites():
        if suite.name.startswith(SAME):
            for star in suite.stars:
                silent = {name for name, said in suite.deleted.items() if len(said.split()) < 3}
                found.setdefault(star, set()).update(set(tree.module(star).tests) - silent)
            for alias, (module, name) in suite.imported.items():
                if alias.startswith(("test_", "Test")):
                    found.setdefault(module, set()).add(name)
    return found


@pytest.fixture(scope="module")
def alone(tree: Tree) -> list[tuple[Module, str]]:
    """Modules and tests that open the embedded store and never run over Postgres."""
    again = runs_again(tree)
    return [
        (suite, test)
        for suite in tree.suites()
        if not suite.name.startswith(OVER_POSTGRES)
        for test in suite.tests
        if test not in again.get(suite.name, ()) and tree.reached(suite, test) == {Found.STORE}
    ]


def entry(module: str) -> str | None:
    return next((one for one in ELSEWHERE if f"{module}.".startswith(f"{one}.")), None)


def test_every_test_that_opens_a_store_runs_on_both(alone: list[tuple[Module, str]]) -> None:
    forgotten = [(suite, test) for suite, test in alone if entry(suite.name) is None]
    assert not forgotten, "\n".join(
        WHAT_TO_DO.format(test=f"{suite.path.relative_to(ROOT)}::{test}", module=suite.name, name=test)
        for suite, test in forgotten
    )


def test_no_reason_is_given_for_what_is_not_there(alone: list[tuple[Module, str]]) -> None:
    assert {entry(suite.name) for suite, _ in alone} - {None} == set(ELSEWHERE)


# --- what is found ---------------------------------------------------------------------------------------------------
STORE: Final = "from nexus.adapters.stores.sqlite import SQLiteStore\ndef store():\n    return SQLiteStore('x')\n"
SERVER: Final = f"from tests.support import postgres\n{STORE}\ndef both(store):\n    return postgres.database()\n"


@pytest.mark.parametrize(
    ("others", "test", "found"),
    [
        ({}, "def test_a():\n    assert True", set()),
        ({}, "from nexus import NexusFS\ndef test_a():\n    NexusFS()", {Found.STORE}),
        ({}, "from nexus import NexusFS\ndef test_a(nx: NexusFS):\n    'a NexusFS'", set()),
        ({}, "def test_a():\n    run('-m', 'nexus.cli')", {Found.STORE}),
        ({"made": STORE}, "from tests.made import store\ndef test_a():\n    store()", {Found.STORE}),
        ({"made": STORE}, "from tests import made\ndef test_a():\n    made.store()", {Found.STORE}),
        ({"made": STORE}, "from tests import made\ndef test_a():\n    made.other()", set()),
        ({"made": STORE}, "def test_a():\n    run('-m', 'tests.made')", {Found.STORE}),
        ({"conftest": STORE}, "def test_a(store):\n    store.head()", {Found.STORE}),
        ({"conftest": STORE}, "def store():\n    ...\ndef test_a(store):\n    ...", set()),
        ({"conftest": STORE}, "def store(store):\n    ...\ndef test_a(store):\n    ...", {Found.STORE}),
        (
            {"conftest": SERVER, "support/postgres": "def database():\n    ..."},
            "def test_a(both):\n    ...",
            {Found.STORE, Found.POSTGRES},
        ),
        (
            {"support/postgres": "def database():\n    ...\ndef dump(database):\n    database.run()"},
            "from tests.support.postgres import dump\ndef test_a():\n    dump(1)",
            set(),
        ),
    ],
)
def test_what_a_test_comes_to(tmp_path: Path, others: dict[str, str], test: str, found: set[Found]) -> None:
    for name, text in (others | {"test_a": test}).items():
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    tree = Tree(tmp_path)
    assert tree.reached(tree.module("tests.test_a"), "test_a") == found
