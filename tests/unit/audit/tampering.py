"""Random tamperings of a store, by somebody who can write the database file and drop its triggers."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_COLUMNS: Final = ("topic", "state", "actor", "occurred_at", "tenant_id", "command", "recorded_at", "correlation_id")


class Tamperer:
    """Opens the file behind the store's back. Every tampering is undone by `undo`."""

    def __init__(self, path: Path, seed: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            self._db.execute(f'DROP TRIGGER "{name}"')
        self.random = random.Random(seed)
        self.rows: list[tuple[Any, ...]] = self._db.execute("SELECT * FROM events ORDER BY position").fetchall()
        self.positions: list[int] = [row[0] for row in self.rows]

    def undo(self) -> None:
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM events")
        marks = ", ".join("?" * len(self.rows[0]))
        self._db.executemany(f"INSERT INTO events VALUES ({marks})", self.rows)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()

    def _any(self, upto: int | None = None) -> int:
        return self.random.choice(self.positions[:upto])

    def edited(self) -> int:
        """Change one column of one event."""
        column, place = self.random.choice(_COLUMNS), self._any()
        old = self._db.execute(f"SELECT {column} FROM events WHERE position = ?", (place,)).fetchone()[0]
        self._db.execute(f"UPDATE events SET {column} = ? WHERE position = ?", (self._changed(old), place))
        return place

    def _changed(self, old: Any) -> Any:
        if isinstance(old, bytes):
            at = self.random.randrange(len(old))
            return old[:at] + bytes([old[at] ^ (1 + self.random.randrange(255))]) + old[at + 1 :]
        at = self.random.randrange(len(old) + 1)
        return old[:at] + self.random.choice("xyz0") + old[at:]

    def removed(self) -> int:
        """Remove an event that is not the last."""
        place = self._any(-1)
        self._db.execute("DELETE FROM events WHERE position = ?", (place,))
        return place

    def inserted(self) -> int:
        """Put a new event between others: push those after it out of the way first, then close the gap by one."""
        place = self._any()
        row = list(self.rows[self.positions.index(place)])
        forged = max(self.positions) + 1
        row[0], row[1], row[2], row[3] = forged, f"forged-{self.random.random()}", "sandbox-forged", 1
        self._db.execute("DELETE FROM events WHERE position = ?", (place,))
        self._db.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", [place, *row[1:]])
        return place

    def moved(self) -> int:
        """Exchange the places of two events."""
        first, second = self.random.sample(self.positions, 2)
        self._db.execute("UPDATE events SET position = -1 WHERE position = ?", (first,))
        self._db.execute("UPDATE events SET position = ? WHERE position = ?", (first, second))
        self._db.execute("UPDATE events SET position = ? WHERE position = -1", (second,))
        return min(first, second)

    def cut(self) -> int:
        """Cut the tail off."""
        place = self._any()
        self._db.execute("DELETE FROM events WHERE position >= ?", (place,))
        return place


KINDS: Final[dict[str, Callable[[Tamperer], int]]] = {
    "edited": Tamperer.edited,
    "removed": Tamperer.removed,
    "inserted": Tamperer.inserted,
    "moved": Tamperer.moved,
    "cut": Tamperer.cut,
}
