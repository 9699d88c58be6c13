"""Frames and fields: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.adapters.agent.guest import frames

KINDS = st.integers(0, 255)
CHANNELS = st.integers(0, 2**32 - 1)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=64)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=32)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=5) | st.dictionaries(st.text(max_size=8), SCALARS, max_size=5)


@given(KINDS, CHANNELS, st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
def test_frames_survive_any_cutting(kind: int, channel: int, payload: bytes, cuts: list[int]) -> None:
    data = frames.frame(kind, channel, payload) * 2
    parser = frames.Parser()
    found = []
    for size in [*cuts, len(data)]:
        found += parser.feed(data[:size])
        data = data[size:]
    assert found == [(kind, channel, payload)] * 2


@given(st.binary(min_size=frames.HEADER.size, max_size=200))
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    if data.startswith(frames.MAGIC):
        data = b"x" + data[1:]
    with pytest.raises(frames.Malformed):
        frames.Parser().feed(data)


def test_a_frame_that_claims_too_much_is_refused_before_it_is_kept() -> None:
    header = frames.HEADER.pack(frames.MAGIC, frames.STDOUT, 1, frames.MAX_PAYLOAD + 1)
    with pytest.raises(frames.Malformed):
        frames.Parser().feed(header)


@pytest.mark.parametrize("size", [0, 1, frames.MAX_PAYLOAD, frames.MAX_PAYLOAD + 1, 3 * frames.MAX_PAYLOAD])
def test_data_is_cut_into_as_many_frames_as_it_needs(size: int) -> None:
    parts = frames.frames(frames.CODE, 7, b"x" * size)
    assert len(parts) == -(-size // frames.MAX_PAYLOAD)
    found = frames.Parser().feed(b"".join(parts))
    assert b"".join(payload for _, _, payload in found) == b"x" * size


@given(VALUES)
def test_fields_come_back_as_they_were(value: object) -> None:
    assert frames.unpack(frames.pack(value)) == value


@given(st.binary(max_size=100))
def test_unpacking_anything_gives_a_value_or_malformed(data: bytes) -> None:
    try:
        frames.unpack(data)
    except frames.Malformed:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"s\xff\xff\xff\xff",
        b"l\x00\x00\x00\x05n",
        b"d\x00\x00\x00\x01nn",
        b"nn",
        b"i\x00",
        b"l\x00\x00\x00\x01" * 6 + b"n",
    ],
    ids=[
        "nothing",
        "a length beyond the end",
        "a short list",
        "a key that is no text",
        "more than one",
        "half a number",
        "too deep",
    ],
)
def test_malformed_fields(data: bytes) -> None:
    with pytest.raises(frames.Malformed):
        frames.unpack(data)


def test_text_that_is_no_unicode_survives() -> None:
    assert frames.unpack(frames.pack("a\udcffb")) == "a\udcffb"


def test_numbers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(struct.error):
        frames.pack(2**63)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        frames.pack(1.5)
    with pytest.raises(frames.Malformed):
        frames.unpack_dict(frames.pack([1]))


def test_what_is_no_frame_is_not_kept() -> None:
    parser = frames.Parser()
    with pytest.raises(frames.Malformed):
        parser.feed(b"x" * 3_000_000)
    assert not parser._buffer
