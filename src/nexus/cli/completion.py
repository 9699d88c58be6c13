"""`nexus completion`."""

from __future__ import annotations

import sys

import click

from nexus.cli.options import common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(nexus completion bash)"                        in ~/.bashrc
    zsh:   eval "$(nexus completion zsh)"                         in ~/.zshrc
    fish:  nexus completion fish > ~/.config/fish/completions/nexus.fish
    """
    from click.shell_completion import get_completion_class

    from nexus.cli.program import COMPLETE, NAME, nexus_command

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    maker = kind(nexus_command, {}, NAME, COMPLETE)
    # Not `source()`: for bash that starts a bash to look at its version.
    sys.stdout.write(maker.source_template % maker.source_vars() + "\n")
