"""What comes from outside: what is taken, and what is refused with words that help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nexus.domain import validation
from nexus.domain.errors import InvalidInput

HUGE = 10**5000
SURROGATE = "a\udc80b"


def label(value: object) -> str:
    """A short id for a parameter: some values here are too long to print, or cannot be."""
    return validation.shown(value, 24)


def refused(check: Callable[[], object]) -> InvalidInput:
    """The refusal: one line of printable text that quotes nothing dangerous."""
    with pytest.raises(InvalidInput) as refusal:
        check()
    for text in (refusal.value.message, refusal.value.hint):
        assert text.isprintable() or text == ""
        assert len(text) < 300
    assert refusal.value.details["field"]
    return refusal.value


@pytest.mark.parametrize(
    "name", ["a", "A", "0", "data-analysis", "my sandbox", "v1.2_x", "a" * 63, "a-", "con"], ids=label
)
def test_names_that_are_fine(name: str) -> None:
    assert validation.name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\t",
        "a" * 64,
        "a" * 100_000,
        ".",
        "..",
        "../etc",
        "a/b",
        "a\\b",
        "-rf",
        " a",
        "a ",
        "_a",
        "a\x00",
        "a\n",
        "a\nb",
        "\x1b[31mred",
        "a\x7f",
        "a\u202eb",
        "a\u200bb",
        "\u0430dmin",
        "\uff41",
        "é",
        "😀",
        SURROGATE,
        None,
        1,
        True,
        b"a",
        ["a"],
    ],
    ids=label,
)
def test_names_that_are_not(name: Any) -> None:
    refused(lambda: validation.name(name))


@pytest.mark.parametrize("check", [validation.ttl_minutes, validation.timeout])
@pytest.mark.parametrize("value", [1, 2, 59, 60], ids=label)
def test_whole_numbers_within_bounds(check: Callable[[Any, int], int], value: int) -> None:
    assert check(value, 60) == value


@pytest.mark.parametrize("check", [validation.ttl_minutes, validation.timeout])
@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        61,
        HUGE,
        -HUGE,
        1.0,
        1.5,
        float("nan"),
        float("inf"),
        True,
        False,
        "10",
        " 7 ",
        "1_000",
        "٣",
        None,
        [],
        1j,
    ],
    ids=label,
)
def test_numbers_that_are_refused(check: Callable[[Any, int], int], value: Any) -> None:
    assert "1 to 60" in refused(lambda: check(value, 60)).hint


@pytest.mark.parametrize("language", ["python", "javascript", "bash"], ids=label)
def test_languages(language: str) -> None:
    assert validation.language(language) == language


@pytest.mark.parametrize(
    "language", ["", "Python", "python ", "js", "ruby", "\x1b[0m", SURROGATE, None, 1, ["python"]], ids=label
)
def test_unknown_languages_are_refused_with_the_known_ones(language: Any) -> None:
    assert "python, javascript, bash" in refused(lambda: validation.language(language)).hint


def test_code_is_bytes_or_text_up_to_the_limit() -> None:
    assert validation.code("", 10) == b""
    assert validation.code("é", 2) == "é".encode()
    assert validation.code(b"\xff\xfe", 2) == b"\xff\xfe"
    assert len(validation.code("x" * 2**20, 2**20)) == 2**20


@pytest.mark.parametrize(
    "code", ["a\x00", b"\x00", SURROGATE, "12345678901", "ééééééé", b"12345678901", None, 1, ["x"]], ids=label
)
def test_code_that_is_refused(code: Any) -> None:
    refused(lambda: validation.code(code, 10))


@pytest.mark.parametrize("argv", [["ls"], ("ls", "-l", ""), ["echo", "a b", "é"], ["x" * 65536]], ids=label)
def test_commands_that_are_fine(argv: Iterable[str]) -> None:
    assert validation.argv(argv) == tuple(argv)


@pytest.mark.parametrize(
    "argv",
    [[], [""], ["", "a"], "ls", b"ls", ["a", 1], ["a\x00"], ["a", SURROGATE], ["x" * 65537], None, 5, {"a": 1}],
    ids=label,
)
def test_commands_that_are_refused(argv: Any) -> None:
    refused(lambda: validation.argv(argv))


@pytest.mark.parametrize("text", ["default", "python:3.12", "ghcr.io/a/b@sha256", "im-0", "a" * 255], ids=label)
def test_identifiers_that_are_fine(text: str) -> None:
    assert validation.identifier(text, "template") == text


@pytest.mark.parametrize(
    "text", ["", "-a", ".a", "/a", "a b", "a\n", "é", "a" * 256, "a;b", "$(x)", SURROGATE, None, 3], ids=label
)
def test_identifiers_that_are_refused(text: Any) -> None:
    refused(lambda: validation.identifier(text, "template"))


@pytest.mark.parametrize("key", ["k", "a" * 255, "order 7/é".replace("é", "e"), "~!@#$%"], ids=label)
def test_idempotency_keys_that_are_fine(key: str) -> None:
    assert validation.idempotency_key(key) == key


@pytest.mark.parametrize("key", ["", "a" * 256, "é", "a\n", "\x00", SURROGATE, None, 1], ids=label)
def test_idempotency_keys_that_are_refused(key: Any) -> None:
    refused(lambda: validation.idempotency_key(key))


def test_labels_that_are_fine() -> None:
    assert validation.labels(None) == {}
    labels = {"team": "data", "a/b.c-d_e": "", "x" * 63: "é" * 255}
    assert validation.labels(labels) == labels
    assert len(validation.labels({f"k{n}": "v" for n in range(32)})) == 32


@pytest.mark.parametrize(
    "labels",
    [
        {"": "v"},
        {"k=": "v"},
        {"k\x00": "v"},
        {"-k": "v"},
        {"x" * 64: "v"},
        {1: "v"},
        {"k": 1},
        {"k": None},
        {"k": "a\nb"},
        {"k": "\x1b[0m"},
        {"k": "\u202e"},
        {"k": SURROGATE},
        {"k": "v" * 256},
        {"nexus.owner": "me"},
        {f"k{n}": "v" for n in range(33)},
        ["k=v"],
        "k=v",
        7,
    ],
    ids=label,
)
def test_labels_that_are_refused(labels: Any) -> None:
    refused(lambda: validation.labels(labels))


def test_environments_that_are_fine() -> None:
    assert validation.env(None) == {}
    env = {"PATH_2": "a=b", "_x": "", "LINES": "a\nb"}
    assert validation.env(env) == env
    assert len(validation.env({f"K{n}": "v" for n in range(128)})) == 128


@pytest.mark.parametrize(
    "env",
    [
        {"": "v"},
        {"A=B": "canary"},
        {"1A": "canary"},
        {"A-B": "canary"},
        {"A": "canary\x00"},
        {"A": 1},
        {"A": None},
        {"A": "canary" + SURROGATE},
        {"É": "canary"},
        {"A" * 129: "canary"},
        {"A": "canary" * 30_000},
        {f"K{n}": "canary" for n in range(129)},
        ["A=canary"],
        "A=canary",
    ],
    ids=label,
)
def test_environments_that_are_refused_without_quoting_a_value(env: Any) -> None:
    refusal = refused(lambda: validation.env(env))
    assert "canary" not in refusal.message + refusal.hint + repr(refusal.details)


@pytest.mark.parametrize("path", ["/a", "a", "../../etc/passwd", "a\nb", "é", "x" * 4096], ids=label)
def test_paths_that_are_fine_for_they_resolve_inside_only(path: str) -> None:
    assert validation.guest_path(path) == path


@pytest.mark.parametrize("path", ["", "a\x00b", "x" * 4097, SURROGATE, None, b"/a", 1], ids=label)
def test_paths_that_are_refused(path: Any) -> None:
    refused(lambda: validation.guest_path(path))


def test_what_is_quoted_is_escaped_and_cut() -> None:
    assert validation.shown("\x1b[31m\u202e") == ascii("\x1b[31m\u202e")
    assert len(validation.shown("x" * 1000)) == 60
    assert validation.shown(7) == "int"
