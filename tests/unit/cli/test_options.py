"""What the shared options take: numbers, pairs, variables."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.cli.options import Decimal, Whole, environment, pairs
from nexus.domain.errors import InvalidInput


@given(st.integers(-(10**12) + 1, 10**12 - 1))
def test_whole_numbers_are_taken(number: int) -> None:
    assert Whole("things").convert(str(number), None, None) == number


@given(st.text())
def test_nothing_else_is_a_whole_number(text: str) -> None:
    plain = text.removeprefix("-")
    if plain.isascii() and plain.isdigit() and len(plain) <= 12:
        assert Whole("things").convert(text, None, None) == int(text)
    else:
        with pytest.raises(click.BadParameter) as caught:
            Whole("things").convert(text, None, None)
        assert len(caught.value.message) < 200


def test_bounds() -> None:
    kind = Whole("things", 1, 9)
    assert [kind.convert(text, None, None) for text in ("1", "9")] == [1, 9]
    for text in ("0", "10", "-1"):
        with pytest.raises(click.BadParameter, match="things"):
            kind.convert(text, None, None)


@pytest.mark.parametrize(("text", "number"), [("1", 1.0), ("0.5", 0.5), ("16.125", 16.125)])
def test_decimals(text: str, number: float) -> None:
    assert Decimal().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "1e3", "nan", "inf", ".5", "1.", "1,5", "1.1234", "٣", "", "1\n"])
def test_what_is_no_decimal(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Decimal().convert(text, None, None)


def test_pairs() -> None:
    assert pairs(["a=1", "b==x", "c="], "label") == {"a": "1", "b": "=x", "c": ""}
    for wrong in (["a"], ["a=1", "a=2"], [""]):
        with pytest.raises(InvalidInput):
            pairs(wrong, "label")


def test_environment() -> None:
    own = {"HERE": "mine", "EMPTY": ""}
    assert environment(["A=1", "HERE", "EMPTY"], own) == {"A": "1", "HERE": "mine", "EMPTY": ""}
    for wrong in (["NOT_HERE"], ["A=secret", "A=secret"], ["HERE", "HERE=secret"]):
        with pytest.raises(InvalidInput) as caught:
            environment(wrong, own)
        assert "secret" not in str(caught.value)
