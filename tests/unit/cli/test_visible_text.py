"""Text from strangers, made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.cli.terminal import VisibleStream, visible


@given(st.text())
def test_nothing_that_acts_on_a_terminal_passes(text: str) -> None:
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in visible(text))


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_what_is_visible_is_left_alone(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"), ("\r", r"\r"), ("\t", r"\t"), ("\x1b[0m", r"\x1b[0m"), ("\x7f", r"\x7f"), ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"), ("\u200d", r"\u200d"), ("\u2028", r"\u2028"), ("\ufeff", r"\ufeff"),
        ("\U000e0041", r"\U000e0041"), ("\udcff", r"\udcff"), ("a\xa0b\u3000c", "a\xa0b\u3000c"), ("[red]", "[red]"),
        ("\\x1b", "\\x1b"),
    ],
)  # fmt: skip
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_what_may_be_kept() -> None:
    assert visible("a\tb\nc\r", keep="\n\t") == "a\tb\nc\\r"


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_where_bytes_are_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole = VisibleStream().feed(data, final=True)
    stream, pieces, before = VisibleStream(), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        pieces.append(stream.feed(data[before:cut]))
        before = cut
    pieces.append(stream.feed(b"", final=True))
    assert "".join(pieces) == whole
    assert all(c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" for c in whole)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"a\r\n", b"b\n"], "a\nb\n"), ([b"a\r", b"\nb"], "a\nb"), ([b"a\r", b"b"], "a\\rb"), ([b"a\r"], "a\\r"),
        ([b"\xe6\x97", b"\xa5"], "日"), ([b"\xe6\x97"], "\\xe6\\x97"), ([b"\xff\xfea"], "\\xff\\xfea"),
        ([b"\xc2", b"\x9b"], "\\x9b"), ([b"\xed\xa0\x80"], "\\xed\\xa0\\x80"),
    ],
)  # fmt: skip
def test_bytes_as_they_are_shown(pieces: list[bytes], shown: str) -> None:
    stream = VisibleStream()
    assert "".join(stream.feed(piece) for piece in pieces) + stream.feed(b"", final=True) == shown


def test_text_is_shown_at_once_not_at_the_end() -> None:
    assert VisibleStream().feed(b"no line end yet") == "no line end yet"
