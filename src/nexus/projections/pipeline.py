"""A replay of the whole log in three strands: reading ahead, applying, writing behind.

The database works on the page before and the page after while this process is busy with the one between.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from nexus.domain.errors import NexusError
from nexus.projections.follower import Follower, Page


def run_through(follower: Follower, page: int, progress: Callable[[int], None] | None = None) -> int | None:
    """Take the log to its present end. Returns how many events it had; None when another wrote with the same key."""
    try:
        return _pipe(follower, page, progress)
    except NexusError:
        raise
    except Exception:  # noqa: BLE001 - a value that no column takes: step by step it is found
        follower.resume()
        return _step_by_step(follower, page, progress)


def _pipe(follower: Follower, page: int, progress: Callable[[int], None] | None) -> int | None:
    events = 0
    written: Future[bool] | None = None
    with ThreadPoolExecutor(1, "nexus-read") as reader, ThreadPoolExecutor(1, "nexus-write") as writer:
        ahead: Future[Page] | None = reader.submit(follower.read, follower.position or 0, page)
        while ahead is not None and (found := ahead.result()):
            last = follower.last(found)
            ahead = reader.submit(follower.read, last, page) if len(found) == page else None
            rows = follower.rows(found)
            if written is not None and not written.result():
                return None
            written = writer.submit(follower.write, last, rows)
            events += len(found)
            if progress is not None:
                progress(last)
    return events if written is None or written.result() else None


def _step_by_step(follower: Follower, page: int, progress: Callable[[int], None] | None) -> int | None:
    events = 0
    while taken := follower.step(page):
        events += taken
        if progress is not None and follower.position is not None:
            progress(follower.position)
        if taken < page:
            break
    return None if taken is None else events
