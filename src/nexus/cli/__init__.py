"""The command line: one module for each group of commands, imported when it is asked for.

Commands parse, ask the engine or the read models, and print; a decision that another door would need is made below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus.domain.provider import Provider

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, given: Iterable[Provider] = ()) -> int:
    """Run one command line and return its exit status; `given` are providers beside the installed ones."""
    from nexus.cli.program import run

    return run(arguments, given)
