"""Command lines that nobody would write: no traceback, a documented status, and nothing recorded when refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.budget import budget
from tests.integration.bad_input import cases
from tests.integration.cli.console import Console
from tests.support.postgres import TestDatabase

DOCUMENTED: Final = {0, 1, 2, 4, 5, 6, 7, 124, 125, 130}
"""As `nexus --help` says; a program's own status comes from `run` and `exec` alone."""

_COMMANDS: Final = [
    ["sandbox", name]
    for name in (
        "create", "run", "exec", "list", "status", "stop", "pause", "resume", "extend", "logs", "timeline", "cp"
    )
] + [
    ["events", "list"], ["events", "show"], ["replay"], ["audit", "log"], ["audit", "why"], ["usage"], ["reconcile"],
    ["projections", "list"], ["projections", "verify"], ["template", "list"], ["providers"],
    ["config", "show"], ["completion"], [],
]  # fmt: skip
_OPTIONS: Final = [
    "--json", "--ttl", "--timeout", "--limit", "--cursor", "--sort", "--state", "--label", "--env", "--provider",
    "--template", "--network", "--memory", "--cpus", "--idempotency-key", "-c", "-f", "-l", "--", "-", "--after",
    "--type", "--all-users", "--since", "--until", "--help", "--fresh",
]  # fmt: skip
_NASTY: Final = [
    text
    for rows in (cases.NAMES, cases.NOT_NUMBERS, cases.OUT_OF_RANGE, cases.LANGUAGES, cases.REFERENCES, cases.PATHS)
    for text in rows.values()
    if len(text) < 200
]
_WORDS = st.one_of(
    st.sampled_from(_OPTIONS),
    st.sampled_from(_NASTY),
    st.sampled_from(["box", "new", "1", "5", "python", "out x", "box:/x", "hex 1b5d303b78071b5b316d", "key"]),
    st.text(max_size=8),
)
_LINES = st.tuples(st.sampled_from(_COMMANDS), st.lists(_WORDS, max_size=6)).map(lambda parts: [*parts[0], *parts[1]])


@pytest.fixture(scope="module")
def nexus(tmp_path_factory: pytest.TempPathFactory, shared_database: TestDatabase | None) -> Iterator[Console]:
    console = Console(tmp_path_factory.mktemp("home"), shared_database)
    console.create("box")
    yield console
    console.close()


@budget(150)
@given(_LINES, st.binary(max_size=30))
@example(["sandbox", "run", "box", "-c", "hex 1b5d303b78071b5b316d"], b"")
@example(["sandbox", "create", "a\x1b[31mb"], b"")
def test_whatever_is_typed(nexus: Console, line: list[str], stdin: bytes) -> None:
    before = nexus.head()
    told = nexus(*line, stdin=stdin)
    ran = line[:2] in (["sandbox", "run"], ["sandbox", "exec"])
    assert told.status in DOCUMENTED or ran, (told.status, told.err)
    assert "Nexus met an error that it does not know" not in told.err
    assert all(c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" for c in told.err) or ran
    if told.status == 2 and not ran:
        after = nexus.events(before)
        assert all("refused" in envelope.topic for envelope in after), [envelope.topic for envelope in after]


def test_a_terminal_sees_no_control_characters(nexus: Console, tmp_path: Path) -> None:
    status, seen = nexus.on_terminal("sandbox", "run", "box", "-c", "hex 1b5d303b78071b5b316d9b")
    assert status == 0
    assert b"\x1b]0;" not in seen
    assert b"\x07" not in seen
