"""The event store and the read models in a Postgres database, shared by any number of processes on many machines.

Tables are made by `migrate` alone, as their owner; everything else here also works for a role that may only add
events. Nothing in here knows a read model: tables and rows arrive as values.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.adapters.stores.postgres.reading import PostgresReading
    from nexus.adapters.stores.postgres.store import PostgresStore
    from nexus.adapters.stores.postgres.views import PostgresViews

__all__ = ["PostgresReading", "PostgresStore", "PostgresViews"]


def __getattr__(name: str) -> Any:
    if name == "PostgresReading":
        from nexus.adapters.stores.postgres.reading import PostgresReading

        return PostgresReading
    if name == "PostgresStore":
        from nexus.adapters.stores.postgres.store import PostgresStore

        return PostgresStore
    if name == "PostgresViews":
        from nexus.adapters.stores.postgres.views import PostgresViews

        return PostgresViews
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
