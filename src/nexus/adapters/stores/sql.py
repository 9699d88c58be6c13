"""The portable subset of SQL that read models live in: statements made from `Table` and `RowWrite` values.

SQLite and Postgres share every statement here but for the mark of a parameter, so a read model is written once.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

from nexus.domain.ports import RowsWrite, RowWrite, Table

TYPES: Final[Mapping[str, str]] = {"text": "text", "integer": "integer", "real": "real"}
"""The kinds of columns, and what SQLite calls them."""
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,50}")

Shape = tuple[str, tuple[str, ...], tuple[str, ...] | None, str | None]
"""Table, key columns, other columns (None: the row goes), the column that only grows."""


def identifier(name: str) -> str:
    """A quoted name. Names come from code alone; one that would need escaping is a mistake in that code."""
    if _IDENTIFIER.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot name a table or column")
    return f'"{name}"'


def create_table(table: Table, types: Mapping[str, str] = TYPES) -> str:
    """Columns are nullable but for the key: a row may be written in parts."""
    lines = []
    for name, kind in table.columns.items():
        if kind not in types:
            raise ValueError(f"column {name!r} of {table.name!r} has type {kind!r}, not one of {', '.join(types)}")
        lines.append(f"{identifier(name)} {types[kind]}{' NOT NULL' if name in table.key else ''}")
    lines.append(f"PRIMARY KEY ({_listed(table.key)})")
    return f"CREATE TABLE IF NOT EXISTS {identifier(table.name)} ({', '.join(lines)})"


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
    """What writes a row of this shape; its parameters are the key's values, then the others."""
    table, key, columns, newer = shape
    name = identifier(table)
    if columns is None:
        return f"DELETE FROM {name} WHERE {' AND '.join(f'{identifier(column)} = {mark}' for column in key)}"
    marks = ", ".join([mark] * (len(key) + len(columns)))
    insert = f"INSERT INTO {name} ({_listed((*key, *columns))}) VALUES ({marks}) ON CONFLICT ({_listed(key)})"
    if not columns:
        return f"{insert} DO NOTHING"
    sets = ", ".join(f"{identifier(column)} = excluded.{identifier(column)}" for column in columns)
    guard = f" WHERE {name}.{identifier(newer)} <= excluded.{identifier(newer)}" if newer is not None else ""
    return f"{insert} DO UPDATE SET {sets}{guard}"


def shape(row: RowWrite | RowsWrite) -> Shape:
    if isinstance(row, RowsWrite):
        return row.table, row.key, row.columns, None
    return row.table, tuple(row.key), None if row.values is None else tuple(row.values), row.newer


def parameters(row: RowWrite) -> tuple[Any, ...]:
    return (*row.key.values(), *(row.values or {}).values())


def writes(rows: Iterable[RowWrite | RowsWrite], mark: str = "?") -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Statements in the rows' order, neighbours of one shape together."""
    for same, group in groupby(rows, key=shape):
        yield statement(same, mark), [values for row in group for values in _tuples(row)]


def _tuples(row: RowWrite | RowsWrite) -> Sequence[tuple[Any, ...]]:
    return row.rows if isinstance(row, RowsWrite) else (parameters(row),)
