"""Groups that know their commands by name and one line of help, and import a command when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group over `{name: (module:attribute, short help)}`, listed in that order.

    Help and completion read the table alone.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)
        for name, (_, text) in lazy.items():
            self.commands[name] = click.Command(name, short_help=text)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def load(self, name: str) -> click.Command:
        """Import a command."""
        module, _, attribute = self.lazy[name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.load(name), rest
