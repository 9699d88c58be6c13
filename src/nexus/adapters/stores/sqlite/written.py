"""Events written down by SQLite, for the audit: text that only has to be hashed, from the columns themselves."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from json.encoder import encode_basestring
from typing import Any, Final

from nexus.domain import sealing
from nexus.domain.sealing import Written

_PAGE: Final = 1000
_MARKS: Final = (b"\xff", b"\xff", b"\n", b"\xff")
"""What stands between positions, ids, forms and payloads. No UTF-8 has the one, and JSON has the other one escaped;
where they are found all the same, there are more pieces than rows."""
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
    f"SELECT count(*), sum(typeof({sealing.PAYLOAD}) = 'blob'), "
    + ", ".join(
        f"group_concat({value}, x'{mark.hex()}')"
        for value, mark in zip(("position", "event_id", _FORM, sealing.PAYLOAD), _MARKS, strict=True)
    )
    + " FROM events WHERE position > ? AND position <= ?"
)
_END: Final = (
    "SELECT max(position) FROM"
    " (SELECT position FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?)"
)
"""Where a page ends. Asked for by itself: to limit the other one costs it a quarter of its speed."""
_SAMPLE: Final = "".join(map(chr, range(0x21))) + '"\\/\x7f\xe9\u2028\ud7ff\U0001f600'


def written(connection: sqlite3.Connection, after: int, upto: int) -> Iterator[Written]:
    """See `Reading.written`; inside the transaction that the connection is in. Raises `sqlite3.Error`.

    The database makes each page in one step, during which Python is free: a thread takes it while the caller works on
    the one before. The connection has to be one that threads may share.
    """
    connection.text_factory = bytes
    thread = ThreadPoolExecutor(1, thread_name_prefix="nexus-written")
    asked: Future[Any] | None = None
    try:
        _require_plain(connection)
        asked = _ask(thread, connection, after, upto)
        while (page := asked.result()) is not None:
            asked = _ask(thread, connection, page[0], upto)
            yield _cut(page)
    finally:
        if asked is not None and not asked.done():
            connection.interrupt()
        thread.shutdown()


def _ask(thread: ThreadPoolExecutor, connection: sqlite3.Connection, after: int, upto: int) -> Future[Any]:
    begun = threading.Event()

    def page() -> Any:
        (end,) = connection.execute(_END, (after, upto, _PAGE)).fetchone()
        begun.set()
        return None if end is None else (end, *connection.execute(_WRITTEN, (after, end)).fetchone())

    asked = thread.submit(page)
    # This thread is about to keep the interpreter to itself for some milliseconds: first let the other one get into the
    # one long statement, in which it does not need it.
    begun.wait()
    return asked


def _cut(page: Sequence[Any]) -> Written:
    _, count, blobs, *texts = page
    # Of nothing but NULL there is no text.
    positions, event_ids, forms, payloads = (
        (text or b"").split(mark) for text, mark in zip(texts, _MARKS, strict=True)
    )
    found = Written(positions, event_ids, forms, payloads)
    if blobs != count or {*map(len, found)} != {count}:
        raise ValueError("a column holds what no event has")
    return found


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
