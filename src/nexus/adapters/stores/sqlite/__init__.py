"""The event store and the read models in one SQLite file, shared by any number of processes of one machine.

`views` and `database` need the standard library alone, so that a command that only reads starts fast; whatever needs
the event sourcing library stays in `recorder` and `store`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.adapters.stores.sqlite.reading import SQLiteReading
    from nexus.adapters.stores.sqlite.store import SQLiteStore
    from nexus.adapters.stores.sqlite.views import SQLiteViews

__all__ = ["SQLiteReading", "SQLiteStore", "SQLiteViews"]


def __getattr__(name: str) -> Any:
    if name == "SQLiteReading":
        from nexus.adapters.stores.sqlite.reading import SQLiteReading

        return SQLiteReading
    if name == "SQLiteStore":
        from nexus.adapters.stores.sqlite.store import SQLiteStore

        return SQLiteStore
    if name == "SQLiteViews":
        from nexus.adapters.stores.sqlite.views import SQLiteViews

        return SQLiteViews
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
