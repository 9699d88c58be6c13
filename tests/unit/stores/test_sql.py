"""The portable statements, one by one."""

from __future__ import annotations

import pytest

from nexus.adapters.stores import sql
from nexus.domain.ports import RowWrite, Table

KEY = {"id": "a"}


def written(*rows: RowWrite, mark: str = "?") -> list[tuple[str, list[tuple[object, ...]]]]:
    return list(sql.writes(rows, mark))


def test_insert_or_update() -> None:
    (((statement, parameters)),) = written(RowWrite("pets", KEY, {"name": "Ada", "age": 3}))
    assert statement == (
        'INSERT INTO "pets" ("id", "name", "age") VALUES (?, ?, ?) ON CONFLICT ("id")'
        ' DO UPDATE SET "name" = excluded."name", "age" = excluded."age"'
    )
    assert parameters == [("a", "Ada", 3)]


def test_a_guarded_update() -> None:
    ((statement, _),) = written(RowWrite("pets", KEY, {"version": 2}, newer="version"))
    assert statement.endswith(
        'DO UPDATE SET "version" = excluded."version" WHERE "pets"."version" <= excluded."version"'
    )


def test_an_update_of_a_row_that_is_there() -> None:
    row = RowWrite("pets", {"id": "a", "n": 1}, {"version": 2, "name": "Ada"}, newer="version", known=True)
    ((statement, parameters),) = written(row)
    assert statement == ('UPDATE "pets" SET "version" = ?, "name" = ? WHERE "id" = ? AND "n" = ? AND "version" <= ?')
    assert parameters == [(2, "Ada", "a", 1, 2)]
    ((statement, parameters),) = written(RowWrite("pets", KEY, {"name": "Ada"}, known=True))
    assert (statement, parameters) == ('UPDATE "pets" SET "name" = ? WHERE "id" = ?', [("Ada", "a")])


def test_a_key_alone() -> None:
    ((statement, parameters),) = written(RowWrite("pets", {"id": "a", "n": 1}, {}))
    assert statement == 'INSERT INTO "pets" ("id", "n") VALUES (?, ?) ON CONFLICT ("id", "n") DO NOTHING'
    assert parameters == [("a", 1)]


def test_delete() -> None:
    ((statement, parameters),) = written(RowWrite("pets", {"id": "a", "n": 1}, None))
    assert statement == 'DELETE FROM "pets" WHERE "id" = ? AND "n" = ?'
    assert parameters == [("a", 1)]


def test_marks_are_the_drivers() -> None:
    ((statement, _),) = written(RowWrite("pets", KEY, {"name": None}), mark="%s")
    assert "VALUES (%s, %s)" in statement
    assert "?" not in statement


def test_neighbours_of_one_shape_travel_together_and_in_order() -> None:
    def pet(name: str) -> RowWrite:
        return RowWrite("pets", {"id": name}, {"name": name})

    gone = RowWrite("pets", KEY, None)
    groups = written(pet("a"), pet("b"), gone, pet("c"))
    assert [parameters for _, parameters in groups] == [[("a", "a"), ("b", "b")], [("a",)], [("c", "c")]]


@pytest.mark.parametrize("name", ["", "Pets", "pets; DROP TABLE events", 'pets"', "péts", "1pets", "p" * 60, "pets\n"])
def test_a_name_that_would_need_escaping_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        sql.identifier(name)
    with pytest.raises(ValueError, match="cannot name"):
        written(RowWrite("pets", KEY, {name: 1}))


def test_tables() -> None:
    table = Table("pets", {"id": "text", "n": "integer", "w": "real"}, ("id", "n"), (("w",), ("n", "w")))
    columns = '"id" text NOT NULL, "n" integer NOT NULL, "w" real, PRIMARY KEY ("id", "n")'
    assert sql.create_table(table) == f'CREATE TABLE IF NOT EXISTS "pets" ({columns})'
    assert sql.create_indexes(table, "x1") == [
        'CREATE INDEX "ix_x1_0" ON "pets" ("w")',
        'CREATE INDEX "ix_x1_1" ON "pets" ("n", "w")',
    ]


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="blob"):
        sql.create_table(Table("pets", {"id": "blob"}, ("id",)))
