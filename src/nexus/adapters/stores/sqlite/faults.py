"""What SQLite reports, said so that its reader knows what to do. Standard library only."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from nexus.domain.errors import SchemaMismatch, StoreError, StoreUnavailable

_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}

_SAID: Final = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "Look which program holds it, then try again."),
    sqlite3.SQLITE_PROTOCOL: ("is locked by another process", "Look which program holds it, then try again."),
    sqlite3.SQLITE_READONLY: ("cannot be written to", "Make the file and its folder writable for this user."),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "Free some space and try again."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written: the disk reports an error", "Check the disk and its space."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check that the folder exists and that this user may use it."),
    sqlite3.SQLITE_PERM: ("may not be used by this user", "Give this user access to the file and its folder."),
    sqlite3.SQLITE_AUTH: ("may not be used by this user", "Give this user access to the file and its folder."),
    sqlite3.SQLITE_NOTADB: ("is not a database", "Move it away, or set NEXUS_DATA_DIR to another folder."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Restore it from a backup; keep the damaged file for inspection."),
    sqlite3.SQLITE_TOOBIG: ("does not take a value that large", "Store less in one event."),
}


def _code(error: BaseException) -> int:
    """The primary result code: extended ones carry it in their low byte."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_passing(error: sqlite3.Error) -> bool:
    """Whether waiting helps."""
    return _code(error) in _PASSING


def is_kept_out(error: sqlite3.Error) -> bool:
    """Whether the file or its folder may not be written to."""
    return _code(error) in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def unavailable(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """The store's error for a failure of SQLite or of the file system. Names the file, never a statement."""
    if isinstance(error, OSError):
        said = error.strerror or type(error).__name__
        return StoreUnavailable(
            f"The store {path} cannot be used: {said}",
            hint="Check that the folder exists and is writable for this user, or set NEXUS_DATA_DIR to another one.",
            path=str(path),
        )
    if isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such "):
        return SchemaMismatch(
            f"The store {path} lacks what this program needs: {error}",
            hint="Run `nexus projections rebuild`, or use the version of Nexus that made it.",
            path=str(path),
        )
    said, hint = _SAID.get(_code(error), (f"reports: {error}", "Check the file and try again."))
    return StoreUnavailable(f"The store {path} {said}", hint=hint, path=str(path))
