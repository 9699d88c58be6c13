"""Putting the parts together from settings. Each function imports only what it opens."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nexus.config import Settings
from nexus.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus.adapters.cipher import MasterKeys
    from nexus.adapters.stores.postgres import PostgresViews
    from nexus.adapters.stores.sqlite import SQLiteViews
    from nexus.domain.bodies import BodyKeepingStore, BodyStore
    from nexus.domain.ports import Reading
    from nexus.domain.provider import Provider
    from nexus.engine.bodies import Bodies
    from nexus.engine.capture import Keeping
    from nexus.engine.service import Engine
    from nexus.engine.streams import Steps
    from nexus.projections.queries import SandboxQueries


def store_path(settings: Settings) -> Path:
    """The embedded store's file."""
    path: Path = settings.data_dir / "nexus.db"
    return path


def is_postgres(settings: Settings) -> bool:
    """Whether `database_url` names a Postgres server; raises for anything else that is not empty."""
    url: str = settings.database_url
    if not url:
        return False
    if url.startswith(("postgresql://", "postgres://")):
        return True
    raise ConfigurationError(
        "NEXUS_DATABASE_URL is not a postgresql:// address",
        hint="Leave it empty for the embedded store, or give postgresql://user@host/database.",
    )


def open_store(settings: Settings) -> BodyKeepingStore:
    """The event store that the settings name; the embedded one is made at first use."""
    if is_postgres(settings):
        from nexus.adapters.stores.postgres import PostgresStore

        return PostgresStore(settings.database_url)
    from nexus.adapters.stores.sqlite import SQLiteStore
    from nexus.projections import TABLES

    return SQLiteStore(store_path(settings), tables=TABLES)


def open_views(settings: Settings) -> SQLiteViews | PostgresViews:
    """The read models alone, for reading: imports no event sourcing library and no provider."""
    if is_postgres(settings):
        from nexus.adapters.stores.postgres.views import PostgresViews
        from nexus.projections.positions import require_prepared

        views = PostgresViews(settings.database_url)
        try:
            require_prepared(views)
        except BaseException:
            views.close()
            raise
        return views
    from nexus.adapters.stores.sqlite.views import SQLiteViews

    return SQLiteViews(store_path(settings))


def open_reading(settings: Settings) -> Reading:
    """The store at this moment, for an auditor: nothing is made, written or locked, and no right to write is needed."""
    if is_postgres(settings):
        from nexus.adapters.stores.postgres import PostgresReading

        return PostgresReading(settings.database_url)
    from nexus.adapters.stores.sqlite import SQLiteReading

    return SQLiteReading(store_path(settings))


def keeping(settings: Settings, bodies: BodyStore) -> Keeping:
    """Where and how code and output are kept. No key is looked for before something is to be sealed or opened."""
    from nexus.engine.capture import Keeping

    @lru_cache
    def master(make: bool) -> MasterKeys:
        from nexus.adapters.cipher import MasterKeys

        if settings.capture_key:
            return MasterKeys.from_text(settings.capture_key, "The setting capture_key")
        # A shared database is used from several machines: a key that each makes for itself would be of no use.
        return MasterKeys.load(settings.capture_key_file, make=make and not is_postgres(settings))

    return Keeping(bodies, master, by_default=settings.capture, days=settings.capture_days)


def open_bodies(
    settings: Settings, store: BodyKeepingStore, queries: SandboxQueries, *, door: str = "python"
) -> Bodies:
    """Kept code and output alone, for reading and erasing: no provider is opened. `door` as in `open_engine`."""
    from nexus.adapters.clock import MonotonicClock
    from nexus.adapters.identity import ProcessOrigin
    from nexus.engine.bodies import Bodies
    from nexus.engine.capture import Keyring
    from nexus.engine.refusals import Refusals
    from nexus.engine.streams import Streams

    kept = keeping(settings, store.bodies)
    streams = Streams(store, MonotonicClock(), ProcessOrigin(door))
    return Bodies(streams, queries, Refusals(streams, queries), kept, Keyring(store, kept))


def open_engine(
    settings: Settings, *, given: Iterable[Provider] = (), steps: Steps | None = None, door: str = "python"
) -> Engine:
    """The whole engine. `given` are providers made by the caller; they take precedence over built-in ones.

    `door` is how its callers come in, for the audit log: `nexus.domain.origin`.
    """
    from nexus.adapters.clock import MonotonicClock
    from nexus.adapters.identity import ProcessLiveness, ProcessOrigin
    from nexus.engine.registry import Providers
    from nexus.engine.service import Engine
    from nexus.engine.streams import no_steps
    from nexus.projections.positions import require_prepared
    from nexus.projections.projector import prepare

    store = open_store(settings)
    try:
        if is_postgres(settings):
            require_prepared(store.views)  # `nexus migrate` did, with rights that this process need not have
        else:
            prepare(store)
    except BaseException:
        store.close()
        raise
    return Engine(
        store,
        Providers(settings, given=given),
        ProcessLiveness(),
        MonotonicClock(),
        limits=settings.limits,
        template=settings.template,
        keeping=keeping(settings, store.bodies),
        steps=steps or no_steps,
        origin=ProcessOrigin(door),
        pool=settings.pool,
    )
