"""Events written down by Postgres, for the audit: text that only has to be hashed, from the columns themselves."""

from __future__ import annotations

import select
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
from psycopg import capabilities
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from nexus.domain import sealing
from nexus.domain.sealing import Written

_SOME: Final = 150
"""Events that are taken over at once. Without libpq 17, which may be linked where psycopg came without its own, it is
one by one, and slower."""
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
    texts = f") || ('{quote},{quote}' || ".join(text.format(name) for name in (*sealing.TEXTS, *optional))
    numbers = ") || (',' || ".join((*(f"{name}::text" for name in sealing.NUMBERS), _MISSING))
    # In pairs, so that what is long already is copied half as often.
    form = f"""('["{sealing.FORMAT}",{quote}' || {texts}) || ('{quote},' || {numbers}) || ']'"""
    return (
        f"SELECT position::text, {form}, {sealing.PAYLOAD} FROM events"
        # By its own name alone it would be the text that is selected.
        " WHERE position > $1::bigint AND position <= $2::bigint ORDER BY events.position"
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
    with closing(_sent(connection.pgconn, _PLAIN, after, upto)) as plain:
        for some in plain:
            if b"\\" in b"".join(some.forms):
                break
            yield some
            after = int(some.positions[-1])
        else:
            return
    yield from _sent(connection.pgconn, _EXACT, after, upto)


def _sent(connection: PGconn, statement: str, after: int, upto: int) -> Generator[Written, None, None]:
    """What the server sends, as it comes: it goes on while the caller works, as far as the socket takes it."""
    connection.send_query_params(
        statement.encode(), [b"%d" % bound for bound in (after, upto)], result_format=Format.BINARY
    )
    if capabilities.has_stream_chunked():
        connection.set_chunked_rows_mode(_SOME)
    else:
        connection.set_single_row_mode()
    try:
        while result := _next(connection):
            value, rows = result.get_value, range(result.ntuples)
            if rows:
                columns: Any = ([value(row, column) for row in rows] for column in range(len(Written._fields)))
                yield Written(*columns)
    finally:
        # In an ordinary transaction: to cancel what is left would end it, and a stretch is short.
        while connection.transaction_status == TransactionStatus.ACTIVE and _next(connection):
            pass


def _next(connection: PGconn) -> PGresult | None:
    poll = select.poll()
    poll.register(connection.socket, select.POLLIN)
    while connection.flush() or connection.is_busy():
        poll.poll()
        connection.consume_input()
    result = connection.get_result()
    if result is not None and result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def _require_types(connection: psycopg.Connection[Any]) -> None:
    """What a column of another type looks like as text says too little about what it holds."""
    found = dict(connection.execute(_COLUMNS).fetchall())
    for column, types in _TYPES.items():
        if found.get(column) not in types:
            raise ValueError(f"events.{column} is of type {found.get(column)}")
