"""The portable subset of SQL that read models live in: statements made from `Table` and `RowWrite` values.

SQLite and Postgres share every statement here but for the mark of a parameter, so a read model is written once.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final, NamedTuple

from nexus.domain.ports import RowsWrite, RowWrite, Table

TYPES: Final[Mapping[str, str]] = {"text": "text", "integer": "integer", "real": "real"}
"""The kinds of columns, and what SQLite calls them."""
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,50}")


class Shape(NamedTuple):
    """All that a statement is made of but the values."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...] | None
    """None: the row goes."""
    newer: str | None = None
    """The column that only grows."""
    known: bool = False
    """Whether the row is there."""


def identifier(name: str) -> str:
    """A quoted name. Names come from code alone; one that would need escaping is a mistake in that code."""
    if _IDENTIFIER.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot name a table or column")
    return f'"{name}"'


def create_table(table: Table, types: Mapping[str, str] = TYPES, *, keyed: bool = True) -> str:
    """Columns are nullable but for the key: a row may be written in parts."""
    lines = []
    for name, kind in table.columns.items():
        if kind not in types:
            raise ValueError(f"column {name!r} of {table.name!r} has type {kind!r}, not one of {', '.join(types)}")
        lines.append(f"{identifier(name)} {types[kind]}{' NOT NULL' if name in table.key else ''}")
    if keyed:
        lines.append(f"PRIMARY KEY ({_listed(table.key)})")
    return f"CREATE TABLE IF NOT EXISTS {identifier(table.name)} ({', '.join(lines)})"


def create_key(table: Table, name: str) -> str:
    """The index that can become the key of a table that was made without."""
    return f"CREATE UNIQUE INDEX {identifier(name)} ON {identifier(table.name)} ({_listed(table.key)})"


def create_indexes(table: Table, suffix: str) -> list[str]:
    """Indexes keep their names when their table is renamed, so `suffix` has to differ each time a table is made."""
    return [
        f"CREATE INDEX {identifier(f'ix_{suffix}_{number}')} ON {identifier(table.name)} ({_listed(columns)})"
        for number, columns in enumerate(table.indexes)
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(identifier, names))


@lru_cache(maxsize=512)
def statement(shape: Shape, mark: str = "?") -> str:
    """What writes a row of this shape; its parameters are in the order of `parameters`."""
    table, key, columns, newer, known = shape
    name = identifier(table)
    matches = " AND ".join(f"{identifier(column)} = {mark}" for column in key)
    if columns is None:
        return f"DELETE FROM {name} WHERE {matches}"
    if known and columns:
        sets = ", ".join(f"{identifier(column)} = {mark}" for column in columns)
        guard = f" AND {identifier(newer)} <= {mark}" if newer is not None else ""
        return f"UPDATE {name} SET {sets} WHERE {matches}{guard}"
    marks = ", ".join([mark] * (len(key) + len(columns)))
    insert = f"INSERT INTO {name} ({_listed((*key, *columns))}) VALUES ({marks}) ON CONFLICT ({_listed(key)})"
    if not columns:
        return f"{insert} DO NOTHING"
    sets = ", ".join(f"{identifier(column)} = excluded.{identifier(column)}" for column in columns)
    guard = f" WHERE {name}.{identifier(newer)} <= excluded.{identifier(newer)}" if newer is not None else ""
    return f"{insert} DO UPDATE SET {sets}{guard}"


def shape(row: RowWrite | RowsWrite) -> Shape:
    if isinstance(row, RowsWrite):
        return Shape(row.table, row.key, row.columns)
    columns = None if row.values is None else tuple(row.values)
    return Shape(row.table, tuple(row.key), columns, row.newer, row.known)


def parameters(row: RowWrite) -> tuple[Any, ...]:
    """An update's: the values, the key, and the value of the column that only grows. Else the key comes first."""
    if row.known and row.values:
        grows = () if row.newer is None else (row.values[row.newer],)
        return (*row.values.values(), *row.key.values(), *grows)
    return (*row.key.values(), *(row.values or {}).values())


def writes(rows: Iterable[RowWrite | RowsWrite], mark: str = "?") -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Statements in the rows' order, neighbours of one shape together."""
    for same, group in groupby(rows, key=shape):
        yield statement(same, mark), [values for row in group for values in _tuples(row)]


def _tuples(row: RowWrite | RowsWrite) -> Sequence[tuple[Any, ...]]:
    return row.rows if isinstance(row, RowsWrite) else (parameters(row),)
