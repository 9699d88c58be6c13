"""One read model that follows the log for as long as a worker runs."""

from __future__ import annotations

import logging
import random
import threading
from typing import Final

from nexus.domain.errors import NexusError
from nexus.domain.ports import EventStore
from nexus.projections.catalog import FollowingProjection
from nexus.projections.follower import PAGE, Follower
from nexus.projections.projector import catch_up

_log = logging.getLogger("nexus.worker")

LONGEST_WAIT: Final = 1.0
"""Seconds without a look at the log, whether or not anybody tells of an event."""
_ASIDE: Final = 0.25
"""Longest pause, in seconds, of a follower that came second: it leaves the next pages to who was faster."""
_PAUSE: Final = 2.0
"""Seconds before the next attempt after a failure."""


class Following:
    """Several may follow with the same projection: each page is written once, by whoever was first."""

    def __init__(self, store: EventStore, projection: FollowingProjection, stop: threading.Event) -> None:
        self._store = store
        self._projection = projection
        self._stop = stop

    def run(self) -> None:
        """Follow until `stop`; the page in progress is finished. Failures are logged, and tried again."""
        while not self._stop.is_set():
            try:
                # Looks whether the tables are of our version, too: a newer program may have rebuilt them.
                catch_up(self._store, self._projection)
                self._follow()
            except NexusError as error:
                _log.warning("%s does not follow: %s", self._projection.name, error.message)
                self._stop.wait(_PAUSE)
            except Exception:  # noqa: BLE001 - whatever it is, the other read models go on
                _log.exception("%s does not follow", self._projection.name)
                self._stop.wait(_PAUSE)

    def _follow(self) -> None:
        follower = Follower(self._store, self._projection)
        while not self._stop.is_set():
            taken = follower.step(PAGE)
            if taken is None:
                self._stop.wait(random.random() * _ASIDE)
                return
            if taken < PAGE and not self._stop.is_set():
                self._store.wait(follower.position or 0, LONGEST_WAIT)
