"""From where an event comes: `door@machine:pid`, such as `cli@build-7:4711`, `python@…`, `worker@…`.

The door is how somebody came in, the machine its host name, the pid the process that recorded the event. One bounded
line of ASCII without spaces: it is a column of the log, is sealed with it, and is shown as it is. It holds no secret,
and nothing of what a request says of itself.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from nexus.domain.errors import InvalidInput
from nexus.domain.validation import shown

MAX_MACHINE: Final = 64
"""Characters of a machine's name that are kept: as many as Linux allows."""

_ORIGIN: Final = re.compile(rf"[a-z][a-z0-9-]{{0,15}}@[A-Za-z0-9._-]{{1,{MAX_MACHINE}}}:[0-9]{{1,10}}")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")


def make(door: str, machine: str, pid: int) -> str:
    """An origin. What a machine's name may not hold becomes `-`; raises `InvalidInput` for an impossible door."""
    return checked(f"{door}@{_FOREIGN.sub('-', machine)[:MAX_MACHINE] or 'unknown'}:{pid}")


@lru_cache(maxsize=256)
def checked(text: str) -> str:
    """The text, if it is an origin; else `InvalidInput`. Asked for every event, so what is known is remembered."""
    if _ORIGIN.fullmatch(text) is None:
        raise InvalidInput(
            f"{shown(text)} is not an origin", hint="It is door@machine:pid, such as cli@build-7:4711.", field="origin"
        )
    return text


def is_within(origin: str, wanted: str) -> bool:
    """Whether an origin is the one that is wanted: all of it, or `door`, `door@machine`, `@machine`, `@machine:pid`."""
    door, _, place = origin.partition("@")
    return wanted in (origin, door, f"{door}@{place.rpartition(':')[0]}", f"@{place.rpartition(':')[0]}", f"@{place}")
