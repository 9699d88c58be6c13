"""The SQL of the store: one statement for a whole append, and the portable subset in psycopg's notation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from nexus.adapters.stores import sql
from nexus.adapters.stores.postgres.schema import ORDINAL_BITS

HORIZON: Final = f"(pg_snapshot_xmin(pg_current_snapshot())::text::bigint + %s) << {ORDINAL_BITS}"
"""Every transaction below it has ended, so no event can appear there any more. Its parameter is the epoch."""

LIMIT: Final = "(SELECT %s::bigint)"
"""One that the planner does not see. Without statistics, of a log that was just restored, it takes a page of the log
for most of it, and would rather sort all that is left than walk along the index."""

COLUMNS: Final = (
    "position, event_id, originator_id, originator_version, topic, schema_version, state, occurred_at, recorded_at,"
    " actor, tenant_id, agent_id, command, correlation_id, causation_id, origin"
)
"""In the order of `recording.PLACED`."""

SNAPSHOT: Final = (
    "INSERT INTO snapshots (originator_id, originator_version, schema_version, state) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (originator_id) DO UPDATE SET originator_version = excluded.originator_version,"
    " schema_version = excluded.schema_version, state = excluded.state"
    " WHERE snapshots.originator_version <= excluded.originator_version"
)

_GIVEN: Final = {
    "event_id": "text",
    "originator_id": "text",
    "originator_version": "bigint",
    "topic": "text",
    "schema_version": "integer",
    "state": "bytea",
    "occurred_at": "text",
    "actor": "text",
    "tenant_id": "text",
    "agent_id": "text",
    "command": "text",
    "correlation_id": "text",
    "causation_id": "text",
    "origin": "text",
}
GIVEN: Final = tuple(_GIVEN)
"""What the writer gives of an event; position and time of recording are the database's."""

_XID: Final = "pg_current_xact_id()::text::bigint"
_INSERT: Final = f"INSERT INTO events (position, {', '.join(GIVEN)})"
_MARKS: Final = ", ".join(["%s"] * len(GIVEN))

FEW: Final = 8
"""Up to so many events travel as values of the statement, more of them as arrays: unnesting costs 0.1 ms."""


@lru_cache(maxsize=512)
def append(events: int, snapshots: int, shapes: tuple[sql.Shape, ...]) -> str:
    """One statement, and so one transaction and one round trip, for events, snapshots and rows of read models.

    Parameters: each snapshot's values, each row's, then for each event the epoch and its `GIVEN` values (many: the
    epoch once, then one array per column). Marks are numbered, `$1`. Returns position and time of each event.
    """
    if events <= FEW:
        places = (f"((({_XID} + %s) << {ORDINAL_BITS}) | {number}, {_MARKS})" for number in range(events))
        insert = f"{_INSERT} VALUES {', '.join(places)}"
    else:
        arrays = ", ".join(f"%s::{kind}[]" for kind in _GIVEN.values())
        names = ", ".join(GIVEN)
        insert = (
            f"{_INSERT} SELECT (({_XID} + %s) << {ORDINAL_BITS}) | (place - 1), {names}"
            f" FROM unnest({arrays}) WITH ORDINALITY AS given ({names}, place)"
        )
    insert += " RETURNING position, recorded_at"
    # What stands before the INSERT is carried out in the same transaction, and costs no round trip.
    beside = [f"snapshot_{number} AS ({SNAPSHOT})" for number in range(snapshots)]
    beside += [f"row_{number} AS ({sql.statement(shape, '%s')})" for number, shape in enumerate(shapes)]
    return numbered(f"WITH {', '.join(beside)} {insert}" if beside else insert)


@lru_cache(maxsize=512)
def write(shape: sql.Shape) -> str:
    """Writes one row; marks are numbered."""
    return numbered(sql.statement(shape, "%s"))


@lru_cache(maxsize=256)
def bulk(shape: sql.Shape, types: tuple[str, ...]) -> str:
    """Writes many rows of one shape, no two with the same key; one array per column, keys first. Numbered marks."""
    table, key, columns, *_ = shape
    arrays = ", ".join(f"%s::{kind}[]" for kind in types)
    if columns is None:
        names = ", ".join(map(sql.identifier, key))
        return numbered(f"DELETE FROM {sql.identifier(table)} WHERE ({names}) IN (SELECT * FROM unnest({arrays}))")
    head, _, rest = sql.statement(shape, "%s").partition(" VALUES (")
    _, _, tail = rest.partition(") ON CONFLICT")
    return numbered(f"{head} SELECT * FROM unnest({arrays}) ON CONFLICT{tail}")


@lru_cache(maxsize=256)
def numbered(statement: str) -> str:
    """`$1`, `$2`, … for `%s`. None of our statements has a literal `%`."""
    numbers = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", statement)


_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|::|:([a-z_][a-z0-9_]*)", re.IGNORECASE)


@lru_cache(maxsize=512)
def portable(statement: str) -> tuple[str, tuple[str, ...]]:
    """`:name` as `$1`, `$2`, …, outside of quotes, and the names in that order."""
    numbers: dict[str, int] = {}

    def mark(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        return f"${numbers.setdefault(found[1], len(numbers) + 1)}"

    return _TOKEN.sub(mark, statement), tuple(numbers)


def array(values: Sequence[Any]) -> str:
    """An array as Postgres reads it: several times as fast as the driver's own way, which looks at each value."""
    kinds = set(map(type, values))
    if kinds == {str}:
        text = '","'.join(values)
        if "\\" not in text and "\0" not in text and text.count('"') == 2 * (len(values) - 1):
            return f'{{"{text}"}}'
    elif kinds <= _NUMBERS and all(-(2**63) <= value < 2**63 for value in values if type(value) is int):
        return "{" + str(list(values))[1:-1].replace("None", "NULL") + "}"
    return "{" + ",".join(map(_element, values)) + "}"


_NUMBERS: Final = {int, float, type(None)}


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if type(value) is bytes:
        return f'"\\\\x{value.hex()}"'
    text = as_text(value)
    if type(value) is not str:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def as_text(value: str | int | float) -> str:
    """A text or a number as the server reads it; `ValueError` for one that it cannot store."""
    if type(value) is str:
        if "\0" in value:
            raise ValueError("a text with a NUL character cannot be stored")
        return value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a number of more than 64 bits cannot be stored")
    return repr(int(value) if isinstance(value, bool) else value)
