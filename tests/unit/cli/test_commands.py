"""The tables of commands that help and completion read without importing the commands."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from nexus.cli.lazy import LazyGroup
from nexus.cli.program import nexus_command


def groups(group: LazyGroup, path: str = "nexus") -> Iterator[tuple[str, LazyGroup]]:
    yield path, group
    for name in group.lazy:
        command = group.load(name)
        if isinstance(command, LazyGroup):
            yield from groups(command, f"{path} {name}")


LISTED = [(path, group, name) for path, group in groups(nexus_command) for name in group.lazy]


@pytest.mark.parametrize(("path", "group", "name"), LISTED, ids=[f"{path} {name}" for path, _, name in LISTED])
def test_a_table_leads_to_the_command(path: str, group: LazyGroup, name: str) -> None:
    command = group.load(name)
    assert command.name == name
    assert command.help
    assert 0 < len(group.lazy[name][1]) <= 60, "more would be cut in a terminal of 80 columns"


def test_help_of_every_command_fits_and_tells_of_every_option() -> None:
    for path, group, name in LISTED:
        command = group.load(name)
        with click.Context(command, info_name=f"{path} {name}", terminal_width=80) as ctx:
            text = command.get_help(ctx)
        assert max(map(len, text.splitlines())) <= 120, path
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{path} {name} {param.name}"


def test_an_unknown_command_suggests_a_known_one() -> None:
    with pytest.raises(click.UsageError) as caught, nexus_command.make_context("nexus", ["sandbo"]) as ctx:
        nexus_command.invoke(ctx)
    assert "sandbox" in caught.value.format_message()
