"""What a command that only reads must not pay for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nexus

LOOK = """
import sys
from pathlib import Path
from nexus.adapters.stores.sqlite.views import SQLiteViews
from nexus.domain.values import Principal
from nexus.projections.queries import SandboxQueries
queries = SandboxQueries(SQLiteViews(Path(sys.argv[1])))
assert queries.page(Principal("ada")).sandboxes == ()
heavy = {"pydantic", "eventsourcing", "transitions", "psycopg", "asyncio", "multiprocessing", "rich", "click"}
print(sorted(heavy & set(sys.modules)))
"""


def test_reading_the_views_loads_neither_the_library_nor_pydantic(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(nexus.__file__).parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "nexus.db")],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "[]\n"
