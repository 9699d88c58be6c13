"""Events written down by SQLite, for the audit: text that only has to be hashed, from the columns themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Final

from nexus.domain import sealing
from nexus.domain.sealing import Written

_SOME: Final = 200
_FORM: Final = ", ".join(
    (
        f"json_array('{sealing.FORMAT}'",
        *sealing.TEXTS,
        *(f"ifnull({name}, '')" for name in sealing.OPTIONAL),
        *sealing.NUMBERS,
        " + ".join(f"({name} IS NULL) * {1 << number}" for number, name in enumerate(sealing.OPTIONAL)) + ")",
    )
)
_WRITTEN: Final = (
    # Text for bytes would look like them from here on.
    f"SELECT CAST(position AS TEXT), {_FORM}, CASE WHEN typeof({sealing.PAYLOAD}) = 'blob' THEN"
    f" {sealing.PAYLOAD} END FROM events"
    # By its own name alone it would be what is selected.
    " WHERE position > ? AND position <= ? ORDER BY events.position"
)
_SAMPLE: Final = "".join(map(chr, range(0x21))) + '"\\/\x7f\xe9\u2028\ud7ff\U0001f600'


def written(connection: sqlite3.Connection, after: int, upto: int) -> Iterator[Written]:
    """See `Reading.written`; inside the transaction that the connection is in. Raises `sqlite3.Error`."""
    connection.text_factory = bytes
    _require_plain(connection)
    cursor = connection.execute(_WRITTEN, (after, upto))
    while rows := cursor.fetchmany(_SOME):
        yield Written(*zip(*rows, strict=True))


def _require_plain(connection: sqlite3.Connection) -> None:
    """Another SQLite may be linked than was ever tried, so it is asked how it writes what is hard to write.

    What a table's own columns hold it writes like that; what it computes may be JSON already, and is written as it is.
    """
    ((found,),) = connection.execute("SELECT json_array(?, 1, NULL)", (_SAMPLE,))
    if found != f"[{encode_basestring(_SAMPLE)},1,null]".encode():
        raise ValueError(f"SQLite {sqlite3.sqlite_version} writes JSON in another way")
    ((tables, computed),) = connection.execute(
        "SELECT (SELECT count(*) FROM sqlite_master WHERE name = 'events' AND type = 'table'),"
        " (SELECT count(*) FROM pragma_table_xinfo('events') WHERE hidden <> 0)"
    )
    if (tables, computed) != (1, 0):
        raise ValueError("events is no plain table")
