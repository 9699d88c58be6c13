"""What is said, and where."""

from __future__ import annotations

import json

import pytest

from nexus.cli.output import Output, as_json

HOSTILE = "a\x1b]0;x\x07\x9b\u202e\x7f"


def test_no_message_can_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.problem("code", HOSTILE, HOSTILE)
    output.warn(HOSTILE)
    output.line(HOSTILE)
    output.fields([("Name", HOSTILE), ("Empty", "")])
    output.table(["NAME"], [[HOSTILE]])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert r"\x1b]0;x\x07\x9b\u202e\x7f" in text
    assert "Empty" not in captured.out


def test_json_is_plain_ascii() -> None:
    text = as_json({"a": HOSTILE + "é日😀"})
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == {"a": HOSTILE + "é日😀"}


def test_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        as_json({"a": float("nan")})


def test_hints_and_warnings_know_when_to_be_silent(capsys: pytest.CaptureFixture[str]) -> None:
    for attribute in ("json", "quiet"):
        output = Output()
        setattr(output, attribute, True)
        output.hint("hint")
        output.warn("warning")
        with output.progress("progress"):
            pass
    output = Output()
    output.hint("nobody looks")
    assert capsys.readouterr() == ("", "")
    output.quiet = True
    output.problem("code", "message", "hint")
    assert capsys.readouterr() == ("", "Error: message\n")
    output.json = True
    output.problem("code", "message", "hint")
    assert json.loads(capsys.readouterr().err) == {"error": {"code": "code", "message": "message", "hint": "hint"}}
