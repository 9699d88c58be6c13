"""Events written down by Postgres, for the audit: text that only has to be hashed, from the columns themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader

from nexus.domain import sealing
from nexus.domain.sealing import Written

_FEW: Final = 150
"""Events that are fetched at once. While the reader works on them the server sends the next, as far as the socket
takes it, some 200 kB with what the kernel adds; then it waits. With many more, the two hardly ever work at once."""
_AHEAD: Final = 2
"""Fetches that are under way."""
_MISSING: Final = (
    "CASE WHEN agent_id IS NULL THEN CASE WHEN causation_id IS NULL THEN '3' ELSE '1' END"
    " ELSE CASE WHEN causation_id IS NULL THEN '2' ELSE '0' END END"
)


def _select(text: str, quote: str) -> str:
    """The statement, with this expression for each text, between such quotes.

    Of texts alone, joined by the one operator that is exact for them, and without any function that is not named with
    its schema: whoever may make operators and functions could put others in the place of what fits less well. NULL
    makes all of it NULL.
    """
    optional = (f"CASE WHEN {name} IS NULL THEN '' ELSE {name} END" for name in sealing.OPTIONAL)
    texts = f" || '{quote},{quote}' || ".join(text.format(name) for name in (*sealing.TEXTS, *optional))
    numbers = " || ',' || ".join((*(f"{name}::text" for name in sealing.NUMBERS), _MISSING))
    form = f"""'["{sealing.FORMAT}",{quote}' || {texts} || '{quote},' || {numbers} || ']'"""
    return (
        f"SELECT position::text, event_id, {form}, {sealing.PAYLOAD} FROM events"
        # By its own name alone it would be the text that is selected.
        " WHERE position > %s::bigint AND position <= %s::bigint ORDER BY events.position"
    )


_PLAIN: Final = _select("{}", '"')
_EXACT: Final = _select("pg_catalog.to_json({})::text", "")
"""Takes the server twice as long."""
_TYPES: Final = {
    **dict.fromkeys((*sealing.TEXTS, *sealing.OPTIONAL), ("text",)),
    **dict.fromkeys(("position", *sealing.NUMBERS), ("bigint", "integer")),
    sealing.PAYLOAD: ("bytea",),
}
_COLUMNS: Final = (
    "SELECT attname, atttypid::regtype::text FROM pg_attribute"
    " WHERE attrelid = to_regclass('events') AND attnum > 0 AND NOT attisdropped"
)


def written(connection: psycopg.Connection[Any], after: int, upto: int) -> Iterator[Written]:
    """See `Reading.written`; inside the transaction that the connection is in. Raises `psycopg.Error`.

    Not escaped until there is a backslash, and escaped from there on.
    """
    _require_types(connection)
    with closing(_fetched(connection, _PLAIN, after, upto)) as plain:
        for some in plain:
            if b"\\" in b"".join(some.forms):
                break
            yield some
            after = int(some.positions[-1])
        else:
            return
    yield from _fetched(connection, _EXACT, after, upto)


def _fetched(connection: psycopg.Connection[Any], select: str, after: int, upto: int) -> Generator[Written, None, None]:
    try:
        with connection.pipeline():
            connection.execute(f"DECLARE written NO SCROLL CURSOR FOR {select}", (after, upto), prepare=False)
            asked = deque(_ask(_cursor(connection)) for _ in range(_AHEAD))
            while page := (cursor := asked.popleft()).fetchall():
                asked.append(_ask(cursor))
                yield Written(*zip(*page, strict=True))
    finally:
        if connection.info.transaction_status == TransactionStatus.INTRANS:
            connection.execute("CLOSE written")


def _cursor(connection: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    cursor = connection.cursor(binary=True)
    cursor.adapters.register_loader("text", ByteaBinaryLoader)
    return cursor


def _ask(cursor: psycopg.Cursor[Any]) -> psycopg.Cursor[Any]:
    return cursor.execute(f"FETCH {_FEW} FROM written", prepare=False)


def _require_types(connection: psycopg.Connection[Any]) -> None:
    """What a column of another type looks like as text says too little about what it holds."""
    found = dict(connection.execute(_COLUMNS).fetchall())
    for column, types in _TYPES.items():
        if found.get(column) not in types:
            raise ValueError(f"events.{column} is of type {found.get(column)}")
