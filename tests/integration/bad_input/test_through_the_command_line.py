"""Every row of bad input that a command line can express: the right status, one clear line, and nothing recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from nexus.domain.policies import Limits
from nexus.domain.refusals import REFUSALS
from tests.integration.bad_input import cases
from tests.integration.cli.console import Console
from tests.support.postgres import TestDatabase

BOX: Final = ["sandbox", "run", "box", "-c", "1"]
LIMIT: Final = Limits()

Row = tuple[list[str], int, str]


def rows() -> dict[str, Row]:
    """Name → arguments, exit status, error code."""
    found: dict[str, Row] = {}

    def refuse(name: str, arguments: list[str], status: int = 2, code: str = "invalid_input") -> None:
        assert name not in found
        found[name] = (arguments, status, code)

    for what, name in cases.NAMES.items():
        refuse(f"name: {what}", ["sandbox", "create", "--", name])
    for option, arguments in {
        "ttl": ["sandbox", "create", "new", "--ttl"],
        "timeout": [*BOX, "--timeout"],
        "longer ttl": ["sandbox", "extend", "box", "--ttl"],
        "memory": ["sandbox", "create", "new", "--memory"],
    }.items():
        for what, number in cases.NOT_NUMBERS.items():
            refuse(f"{option}: {what}", [*arguments, number], code="usage")
        for what, number in cases.OUT_OF_RANGE.items():
            refuse(f"{option}: {what}", [*arguments, number])
    refuse("ttl: beyond the maximum", ["sandbox", "create", "new", "--ttl", str(LIMIT.max_ttl_minutes + 1)])
    refuse("timeout: beyond the maximum", [*BOX, "--timeout", str(LIMIT.max_timeout + 1)])
    for what, number in (cases.NOT_NUMBERS | {"negative": "-1", "zero": "0"}).items():
        if what not in ("fraction", "whole fraction"):
            refuse(f"cpus: {what}", ["sandbox", "create", "new", "--cpus", number], code="usage")
        refuse(f"limit: {what}", ["sandbox", "list", "--limit", number], code="usage")
    for what, language in cases.LANGUAGES.items():
        refuse(f"language: {what}", [*BOX, "-l", language])
    for what, reference in cases.REFERENCES.items():
        for command in (
            ["status"],
            ["run", "-c", "1"],
            ["stop"],
            ["pause"],
            ["resume"],
            ["extend", "--ttl", "5"],
            ["logs"],
        ):
            arguments = ["sandbox", *command, "--", reference]
            refuse(f"{command[0]}: {what}", arguments, status=5, code="sandbox_not_found")
    for what, label in cases.LABEL_NAMES.items():
        refuse(f"label name: {what}", ["sandbox", "create", "new", "--label", f"{label}=x"])
    for what, value in cases.LABEL_VALUES.items():
        refuse(f"label value: {what}", ["sandbox", "create", "new", "--label", f"a={value}"])
    refuse("labels: too many", ["sandbox", "create", "new", *(f"--label=l{n}=x" for n in range(33))])
    for what, name in cases.VARIABLE_NAMES.items():
        refuse(f"variable: {what}", ["sandbox", "create", "new", "--env", f"{name}=x"])
        refuse(f"variable of a run: {what}", [*BOX, "--env", f"{name}=x"])
    for what, value in cases.VARIABLE_VALUES.items():
        refuse(f"variable's value: {what}", ["sandbox", "create", "new", "--env", f"A={value}"])
    refuse("variables: too many", ["sandbox", "create", "new", *(f"--env=V{n}=x" for n in range(129))])
    for what, key in cases.KEYS.items():
        refuse(f"key: {what}", ["sandbox", "create", "new", "--idempotency-key", key])
    for what, template in cases.TEMPLATES.items():
        refuse(f"template: {what}", ["sandbox", "create", "new", "--template", template])
        refuse(f"provider: {what}", ["sandbox", "create", "new", "--provider", template])
    for what, path in cases.PATHS.items():
        refuse(f"path out: {what}", ["sandbox", "cp", f"box:{path}", "./x"])
        refuse(f"path in: {what}", ["sandbox", "cp", "-", f"box:{path}"])
    for what, cursor in {"rubbish": "rubbish", "empty": "", "deep": "W" * 20_000, "number": "NQ", "NUL": "\0"}.items():
        refuse(f"cursor: {what}", ["sandbox", "list", "--cursor", cursor])
    refuse("network", ["sandbox", "create", "new", "--network", "host"], code="usage")
    refuse("state", ["sandbox", "list", "--state", "gone"], code="usage")
    refuse("column that is no filter", ["sandbox", "list", "--sort", "name; DROP TABLE"], code="usage")
    refuse("code and file", [*BOX, "-f", "x"], code="usage")
    refuse("no code", ["sandbox", "run", "box"], code="usage")
    refuse("code: NUL", ["sandbox", "run", "box", "-c", "a\0b"])
    refuse("command: NUL", ["sandbox", "exec", "box", "--", "a\0b"])
    refuse("command: empty", ["sandbox", "exec", "box", "--", ""])
    refuse("command: lone surrogate", ["sandbox", "exec", "box", "--", "\udcff"])
    refuse("command: too long", ["sandbox", "exec", "box", "--", "a" * 70_000])
    for what, path in {
        "zero": "/dev/zero",
        "random": "/dev/urandom",
        "folder": "/",
        "none": "/no/such",
        "NUL": "a\0",
    }.items():
        refuse(f"file: {what}", ["sandbox", "run", "box", "-f", path])
    for what, wanted in {"word": "x", "negative": "-1", "NUL": "1\0", "braces": "{" + "0" * 36 + "}"}.items():
        refuse(f"event: {what}", ["events", "show", "--", wanted])
    refuse("event type", ["events", "list", "--type", "sandbox.nosuch"])
    refuse("stopped: run", ["sandbox", "run", "gone", "-c", "1"], 6, "illegal_transition")
    refuse("stopped: pause", ["sandbox", "pause", "gone"], 6, "illegal_transition")
    refuse("stopped: resume", ["sandbox", "resume", "gone"], 6, "illegal_transition")
    refuse("stopped: extend", ["sandbox", "extend", "gone", "--ttl", "5"], 6, "illegal_transition")
    refuse("stopped: cp", ["sandbox", "cp", "-", "gone:/x"], 6, "illegal_transition")
    refuse("paused: run", ["sandbox", "run", "asleep", "-c", "1"], 6, "illegal_transition")
    refuse("paused: exec", ["sandbox", "exec", "asleep", "--", "ls"], 6, "illegal_transition")
    refuse("name in use", ["sandbox", "create", "box"], 6, "name_taken")
    refuse("key in use", ["sandbox", "create", "new", "--idempotency-key", "k"], 6, "idempotency_mismatch")
    refuse("others' sandboxes", ["sandbox", "list", "--all-users"], 4, "not_allowed")
    return found


ROWS: Final = rows()
DECISIONS: Final = {kind.code for kind in REFUSALS}
COMMANDS: Final = {("sandbox", name) for name in ["create", "run", "exec", "pause", "resume", "stop", "extend", "cp"]}


@pytest.fixture(scope="module")
def nexus(tmp_path_factory: pytest.TempPathFactory, shared_database: TestDatabase | None) -> Iterator[Console]:
    """One installation for all rows: none of them may change it."""
    console = Console(tmp_path_factory.mktemp("bad-input"), shared_database)
    console.create("box", "--idempotency-key", "k")
    console.create("asleep")
    console.ok("sandbox", "pause", "asleep")
    console.create("gone")
    console.ok("sandbox", "stop", "gone")
    yield console
    console.close()


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_and_nothing_is_recorded_but_a_decision(
    nexus: Console, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, status, code = ROWS[name]
    monkeypatch.chdir(nexus.folder)
    head, calls = nexus.head(), len(nexus.provider.cloud.calls())
    split = arguments.index("--") if "--" in arguments else len(arguments)
    result = nexus(*arguments[:split], "--json", *arguments[split:])
    error = result.error
    assert (result.status, error["code"], result.out) == (status, code, b"")
    for text in (error["message"], error["hint"]):
        assert text.isprintable(), text
        assert len(text) < 500
    assert error["message"]
    assert len(nexus.provider.cloud.calls()) == calls
    decided = code in DECISIONS and tuple(arguments[:2]) in COMMANDS
    assert [(event.topic, getattr(event.event, "error", None)) for event in nexus.events(head)] == [
        ("command.refused", code)
    ] * decided
    assert not (nexus.folder / "x").exists()

    told = nexus(*arguments)
    assert (told.status, told.out) == (status, b"")
    assert told.err.startswith("Error: ")
    assert len(told.err) < 1000
    assert all(character.isprintable() or character == "\n" for character in told.err)


def test_every_row_of_the_list_is_there() -> None:
    """Rows are data: a slip in making them must not silently drop a kind."""
    kinds = {name.partition(":")[0] for name in ROWS}
    assert len(ROWS) > 350
    assert {
        "name",
        "ttl",
        "timeout",
        "language",
        "status",
        "label value",
        "variable",
        "key",
        "template",
        "path in",
    } <= kinds


def test_a_fifo_is_not_waited_for(nexus: Console, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = nexus.head()
    assert nexus("sandbox", "run", "box", "-f", str(fifo)).status == 2
    assert nexus("sandbox", "cp", str(fifo), "box:/x").status == 2
    assert nexus.head() == before


@pytest.mark.parametrize("size", [LIMIT.max_code_bytes + 1, 50 * 1024 * 1024])
def test_too_much_code_is_refused_before_it_is_all_read(nexus: Console, size: int) -> None:
    before = nexus.head()
    refused = nexus("sandbox", "run", "box", "-c", "-", "--json", stdin=b"#" * size)
    assert (refused.status, refused.error["code"]) == (2, "invalid_input")
    assert nexus.head() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pause", "asleep"], b"Paused sandbox"),
        (["stop", "gone"], b"Stopped sandbox"),
        (["resume", "box"], b"Resumed sandbox"),
    ],
)
def test_what_is_so_already_is_fine_and_records_nothing(nexus: Console, arguments: list[str], words: bytes) -> None:
    before = nexus.head()
    result = nexus.ok("sandbox", *arguments)
    assert result.out.startswith(words)
    assert nexus.head() == before
