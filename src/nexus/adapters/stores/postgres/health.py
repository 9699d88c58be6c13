"""Who keeps readers from the end of the log: a transaction that stays open, anywhere in the server."""

from __future__ import annotations

from dataclasses import dataclass

from nexus.adapters.stores.postgres.database import Database
from nexus.adapters.stores.postgres.link import Link
from nexus.adapters.stores.postgres.statements import HORIZON

_HELD_BACK = f"SELECT count(*) FROM events WHERE position >= {HORIZON}"

# The oldest transaction that has an id is what readers wait for; what began earlier and only reads is in nobody's way.
_OLDEST = """
WITH horizon AS (SELECT pg_snapshot_xmin(pg_current_snapshot())::xid AS oldest)
SELECT 'session', pid::text, coalesce(usename, ''), coalesce(datname, ''), coalesce(application_name, ''),
  coalesce(state, ''), extract(epoch FROM clock_timestamp() - xact_start)::double precision
FROM pg_stat_activity, horizon WHERE backend_xid = oldest AND pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared', gid, owner, database, '', 'prepared',
  extract(epoch FROM clock_timestamp() - prepared)::double precision
FROM pg_prepared_xacts, horizon WHERE transaction = oldest
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A transaction that readers wait for."""

    kind: str
    """`session`, or `prepared` for a prepared transaction that nobody commits."""
    name: str
    """The backend's process id, or the prepared transaction's name."""
    user: str
    database: str
    application: str
    state: str
    seconds: float | None
    """Since when; None where the server does not tell this role (`pg_read_all_stats`)."""

    def __str__(self) -> str:
        since = "" if self.seconds is None else f" for {self.seconds:.0f} s"
        if self.kind == "prepared":
            return f"prepared transaction {self.name!r} of {self.user} in database {self.database}{since}"
        what = ", ".join(part for part in (self.application, self.state) if part)
        return f"session {self.name} of {self.user} in database {self.database} ({what or 'no more is told'}){since}"

    @property
    def remedy(self) -> str:
        """The statement that ends it, for someone who may."""
        if self.kind == "prepared":
            return f"ROLLBACK PREPARED '{self.name}'"
        return f"SELECT pg_terminate_backend({self.name})"


def held_back(database: Database) -> tuple[int, list[Blocker]]:
    """How many events no reader gets yet, and whose transactions they wait for."""

    def look(link: Link) -> tuple[int, list[Blocker]]:
        found = link.execute(_HELD_BACK, (str(link.epoch),)).fetchone()
        return (found[0] if found else 0), [Blocker(*row) for row in link.execute(_OLDEST).fetchall()]

    return database.ask(look)
