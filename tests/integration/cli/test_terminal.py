"""On a real terminal: what is drawn there, and that nothing from a stranger can steer it."""

from __future__ import annotations

import re

import pytest

from tests.integration.cli.console import Console

OURS = re.compile(rb"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\r\x1b\[K|\x1b\[H\x1b\[2J")
"""What the program itself may send: colours, the cursor's visibility, wiping its progress line, a redraw."""

HOSTILE = {
    "1b5d303b70776e656407": r"\x1b]0;pwned\x07",  # the window's title
    "1b5b33316d7265641b5b306d": r"\x1b[31mred\x1b[0m",
    "1b5b324a1b5b48": r"\x1b[2J\x1b[H",  # wipe the screen
    "1b5d35323b633b61476b3d07": r"\x1b]52;c;aGk=\x07",  # the clipboard
    "1b5d383b3b687474703a2f2f782f1b5c": r"\x1b]8;;http://x/\x1b" + "\\",  # a link
    "c29b33316d": r"\x9b31m",  # the one-character form of ESC [
    "9b33316d": r"\x9b31m",  # the same, not as UTF-8
    "6162080863": r"ab\x08\x08c",
    "66616b650d7265616c": r"fake\rreal",
    "07": r"\x07",
    "7f": r"\x7f",
    "e280ae6578652e": r"\u202eexe.",  # right to left
    "61e2808b62": r"a\u200bb",  # a space of no width
    "6100": r"a\x00",
    "0e61": r"\x0ea",
    "61e280a862": r"a\u2028b",
    "f3a0818161": r"\U000e0041a",  # an invisible letter
}
"""What a program prints, and what a terminal may show of it."""


def harmless(seen: bytes) -> bool:
    """Whether a terminal would only print this and go to the next line."""
    return all(character >= " " or character in "\r\n\t" for character in OURS.sub(b"", seen).decode("utf-8"))


@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_output_cannot_steer_a_terminal(nexus: Console, option: str) -> None:
    nexus.create("box")
    code = "\n".join(f"hex {attack}0a" for attack in HOSTILE)
    assert nexus.on_terminal("sandbox", "run", "box", option, "-c", code) == (
        0,
        "".join(f"{shown}\r\n" for shown in HOSTILE.values()).encode(),
    )


def test_plain_output_is_left_alone_on_a_terminal(nexus: Console) -> None:
    nexus.create("box")
    plain = "tab\there, ünïcödé, 日本語, no-break space,\nnext"
    status, seen = nexus.on_terminal("sandbox", "run", "box", "-c", f"hex {plain.encode().hex()}\nhex 0d0a")
    assert (status, seen.decode()) == (0, plain.replace("\n", "\r\n") + "\r\n")


def test_a_character_that_comes_in_two_halves_is_whole(nexus: Console) -> None:
    nexus.create("box")
    _, seen = nexus.on_terminal("sandbox", "run", "box", "-c", "hex e697\nhex a50d\nhex 0ae6")
    assert seen == "日\r\n\\xe6".encode()


@pytest.mark.parametrize("command", ["list", "status", "create", "logs"])
def test_stored_text_cannot_steer_a_terminal(nexus: Console, command: str) -> None:
    """Labels may hold any printable text, and a log written by others may hold anything."""
    sandbox_id = nexus.create("box", "--label", "team=x")
    nexus.ok("sandbox", "run", "box", "-c", "out hi")
    nexus.ok("sandbox", "logs", "box")
    forged = "a\x1b]0;pwned\x07\x9b31m\u202e"
    nexus.write("UPDATE sandboxes SET name = ?, last_error = ?, provider = 'scripted'", (forged, forged))
    nexus.write("UPDATE executions SET language = ?, reason = ?", (forged, forged))
    arguments = {
        "list": ["list"], "status": ["status", sandbox_id], "create": ["create", forged],
        "logs": ["logs", sandbox_id],
    }[command]  # fmt: skip
    _, seen = nexus.on_terminal("sandbox", *arguments)
    assert harmless(seen), seen
    assert b"\\x1b" in seen
    piped = nexus("sandbox", *arguments)
    assert "\x1b" not in piped.text + piped.err


def test_errors_cannot_steer_a_terminal(nexus: Console) -> None:
    for arguments in (["sandbox", "status", "\x1b]0;x\x07"], ["sandbox", "\x1b[2J"], ["--\x1b[2J"]):
        status, seen = nexus.on_terminal(*arguments)
        assert status in (2, 5)
        assert harmless(seen), seen


def test_a_copied_file_cannot_steer_a_terminal(nexus: Console) -> None:
    nexus.create("box")
    nexus.ok("sandbox", "cp", "-", "box:/x", stdin=b"a\x1b[2Jb\n")
    assert nexus.on_terminal("sandbox", "cp", "box:/x", "-") == (0, b"a\\x1b[2Jb\r\n")


def test_json_cannot_steer_a_terminal(nexus: Console) -> None:
    nexus.create("box")
    _, seen = nexus.on_terminal("sandbox", "run", "box", "--json", "-c", "hex 1b5d303b787f07c29be280ae")
    assert harmless(seen), seen
    assert b"\\u001b]0;x\\u007f\\u0007\\u009b\\u202e" in seen


def test_hints_and_progress_are_for_terminals(nexus: Console) -> None:
    _, seen = nexus.on_terminal("sandbox", "create", "box")
    assert seen.startswith(b"Creating the sandbox \xe2\x80\xa6\r\x1b[K")
    _, seen = nexus.on_terminal("sandbox", "create", "more", "--quiet")
    assert re.fullmatch(rb"sb_[0-9a-f]{32}\r\n", seen)
    _, seen = nexus.on_terminal("sandbox", "list", "--state", "paused")
    assert b"There are no such sandboxes" in seen


def test_a_table_on_a_terminal_is_drawn_and_without_colour_when_asked(nexus: Console) -> None:
    sandbox_id = nexus.create("box")
    _, coloured = nexus.on_terminal("sandbox", "list")
    assert b"\x1b[1m" in coloured
    assert sandbox_id[:15].encode() in coloured
    assert sandbox_id.encode() not in coloured
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        _, seen = nexus.on_terminal("sandbox", "list", env=plain)
        assert b"\x1b[3" not in seen
        assert b"box" in seen


@pytest.mark.parametrize("command", [["sandbox", "list"], ["sandbox", "status", "box"], ["--help"], ["events", "list"]])
def test_a_terminal_one_column_wide(nexus: Console, command: list[str]) -> None:
    nexus.create("box")
    status, seen = nexus.on_terminal(*command, columns=1, env={"COLUMNS": "1"})
    assert status == 0
    assert b"Traceback" not in seen
    assert seen


def test_help_on_a_terminal(nexus: Console) -> None:
    status, seen = nexus.on_terminal("sandbox", "run", "--help")
    assert status == 0
    assert b"Usage: nexus sandbox run" in seen
