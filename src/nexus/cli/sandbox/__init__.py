"""`nexus sandbox`: one module for each family of commands, imported when it is called.

Nothing here is imported by another group, and nothing here decides what a sandbox may do.
"""

from __future__ import annotations

from typing import Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common

_HERE: Final = "nexus.cli.sandbox"
_COMMANDS: Final = {
    "create": (f"{_HERE}.create:create", "Create a sandbox and wait until it is active."),
    "run": (f"{_HERE}.run:run", "Run code in a sandbox."),
    "exec": (f"{_HERE}.run:execute", "Run a command in a sandbox."),
    "list": (f"{_HERE}.listing:list_", "List sandboxes, newest first."),
    "status": (f"{_HERE}.status:status", "Show one sandbox."),
    "pause": (f"{_HERE}.lifecycle:pause", "Pause a sandbox; its time to live stands still."),
    "resume": (f"{_HERE}.lifecycle:resume", "Resume a paused sandbox."),
    "extend": (f"{_HERE}.lifecycle:extend", "Let a sandbox live longer."),
    "stop": (f"{_HERE}.lifecycle:stop", "Destroy sandboxes. Final."),
    "cp": (f"{_HERE}.files:copy", "Copy a file into or out of a sandbox."),
    "logs": (f"{_HERE}.logs:logs", "List what was run in a sandbox."),
    "timeline": (f"{_HERE}.timeline:timeline", "Draw lives of sandboxes, with what ran in them."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def sandbox() -> None:
    """Create sandboxes, run code in them, stop them.

    SANDBOX is an id, the unique beginning of an id (four characters or more), or a name.
    """
