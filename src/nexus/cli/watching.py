"""`--watch`: show something again whenever it has changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from nexus.cli.session import Session
from nexus.cli.terminal import is_terminal

T = TypeVar("T")

_INTERVAL: Final = 0.5
"""Seconds between looks; a look is one query of the read model."""
_REFRESH: Final = 10
"""Looks after which a terminal is drawn anew without a change: the times on it are relative to now."""


def watch(
    session: Session,
    look: Callable[[], T],
    as_dict: Callable[[T], Mapping[str, Any]],
    show: Callable[[T], None],
    done: Callable[[T], bool],
) -> None:
    """Look again and again until `done`, or until interrupted.

    A terminal is drawn anew, other outputs get each change below the one before: in JSON, one object a line.
    """
    output = session.output
    drawn = is_terminal(sys.stdout) and not output.json
    before: T | None = None
    looks = 0
    while True:
        seen = look()
        if seen != before or (drawn and looks % _REFRESH == 0):
            if output.json:
                output.value(as_dict(seen), compact=True)
            else:
                if drawn:
                    sys.stdout.write("\x1b[H\x1b[2J")
                show(seen)
            output.flush()
            before = seen
        if done(seen):
            return
        looks += 1
        time.sleep(_INTERVAL)
