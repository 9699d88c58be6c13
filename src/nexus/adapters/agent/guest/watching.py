"""What the agent waits for: descriptors, and the moment at which the sandbox has to end."""

from __future__ import annotations

import select

from nexus.adapters.agent.guest.child import now

_FAR = 100 * 366 * 24 * 3600 * 1000
"""Milliseconds that no deadline is further away: every number on the wire has 64 bits."""
_EXPIRY_GRACE = 300
"""An expired sandbox lingers this many milliseconds: an extension that came while it was frozen is read before that."""


class Watcher:
    """`poll`, told what is of interest as a whole; only differences reach the kernel."""

    def __init__(self) -> None:
        self._poller = select.poll()
        self._watched: dict[int, int] = {}

    def wait(self, wanted: dict[int, int], seconds: float | None) -> list[tuple[int, int]]:
        """What has happened on the descriptors, waiting for at most so long."""
        for descriptor in [x for x in self._watched if x not in wanted]:
            self.forget(descriptor)
        for descriptor, events in wanted.items():
            if self._watched.get(descriptor) != events:
                self._poller.register(descriptor, events)
                self._watched[descriptor] = events
        # The kernel takes 24 days at most; looking again before that harms nothing.
        return self._poller.poll(None if seconds is None else min(max(0.0, seconds), 3600.0) * 1000 + 1)

    def forget(self, descriptor: int) -> None:
        """To be called before a watched descriptor is closed: its number may be used again at once."""
        if self._watched.pop(descriptor, None) is not None:
            self._poller.unregister(descriptor)


class Deadline:
    """When the sandbox ends on its own account, if ever."""

    def __init__(self, config: dict[str, object]) -> None:
        self._at: float | None = None
        self._grace = number(config, "expiry_grace", _EXPIRY_GRACE) / 1000
        self._noticed: float | None = None
        if isinstance(config.get("ttl"), int):
            self.set(number(config, "ttl", 0))

    def set(self, ttl: int) -> None:
        """So many milliseconds from now."""
        self._at = now() + min(ttl, _FAR) / 1000

    def extend(self, ttl: int) -> None:
        """No sooner than so many milliseconds from now; changes nothing where there is no deadline."""
        if self._at is not None:
            self._at = max(self._at, now() + min(ttl, _FAR) / 1000)

    @property
    def ttl(self) -> int | None:
        """Milliseconds that are left."""
        return None if self._at is None else int((self._at - now()) * 1000)

    @property
    def next_look(self) -> float | None:
        """The moment at which to ask again whether it has passed."""
        return None if self._at is None else self._at + (self._grace if self._noticed is not None else 0)

    def passed(self, at: float) -> bool:
        """It has passed, and nobody has extended it since that was noticed."""
        if self._at is None or at < self._at:
            self._noticed = None
            return False
        if self._noticed is None:
            self._noticed = at
        return at - self._noticed >= self._grace


def number(fields: dict[str, object], name: str, default: int) -> int:
    """An integer field, or the default for one that is missing or something else."""
    value = fields.get(name)
    return value if isinstance(value, int) else default
