"""Waiting for a condition, the only kind of waiting that tests do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE: Final = 60.0
"""Seconds after which what did not come true is a failure; long, for machines that are busy with other tests."""


def until(condition: Callable[[], Any], what: str = "it came true", seconds: float = PATIENCE) -> float:
    """Wait until `condition()` is true, and fail when it is not in time. Returns how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.005)
    return time.monotonic() - began
