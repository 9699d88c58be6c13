"""From where an event comes is one bounded, printable text, whatever a machine is called."""

from __future__ import annotations

import pytest

from nexus.domain.errors import InvalidInput
from nexus.domain.origin import checked, is_within, make


def test_an_origin_names_door_machine_and_process() -> None:
    assert make("cli", "build-7.example", 4711) == "cli@build-7.example:4711"


@pytest.mark.parametrize("machine", ["a b", "né\n\x1b[31m", "x" * 300, "", "evil@host:1", "\u202e", "=1+1"])
def test_a_strange_machine_name_makes_no_strange_origin(machine: str) -> None:
    text = make("worker", machine, 1)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert len(text) <= 100
    assert text.count("@") == text.count(":") == 1
    assert checked(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "cli", "cli@host", "@host:1", "cli@:1", "CLI@host:1", "cli@host:1 ", "cli@host:1\n", "cli@ho st:1",
     "cli@host:x", "cli@host:-1", "cli@host:12345678901", "a" * 17 + "@host:1", f"cli@{'h' * 65}:1", "cli@host:\u0661"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        checked(text)


def test_an_origin_is_asked_for_in_parts() -> None:
    origin = "worker@host-2:17"
    for part in ("worker", "worker@host-2", "@host-2", "@host-2:17", origin):
        assert is_within(origin, part), part
    for other in ("", "cli", "work", "worker@host", "@host", "@host-2:1", "host-2", "worker@host-2:1", "@"):
        assert not is_within(origin, other), other
