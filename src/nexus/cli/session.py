"""One call of the command line: its settings, its output, and what it has opened."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, cast

import click

from nexus.cli.output import Output

if TYPE_CHECKING:
    from datetime import datetime

    from nexus.adapters.stores.postgres import PostgresViews
    from nexus.adapters.stores.sqlite import SQLiteViews
    from nexus.config import Settings
    from nexus.domain.bodies import BodyKeepingStore
    from nexus.domain.ports import Reading
    from nexus.domain.provider import Provider
    from nexus.domain.values import Principal
    from nexus.engine.bodies import Bodies
    from nexus.engine.history import History
    from nexus.engine.registry import Providers
    from nexus.engine.service import Engine
    from nexus.projections.queries import SandboxQueries


class Session:
    """The object that every command gets (`click.pass_obj`). Everything in it is opened when first asked for."""

    def __init__(self, given: Iterable[Provider] = ()) -> None:
        self.output = Output()
        self.failure = 1
        """Exit status when the system fails; `run` and `exec` make it 125 until the program may have run."""
        self.door = "cli"
        """What the audit log calls the way in; a worker names itself before it opens the engine."""
        self._given = tuple(given)
        self._engine: Engine | None = None
        self._store: BodyKeepingStore | None = None

    @cached_property
    def settings(self) -> Settings:
        from nexus import config

        return config.load()

    @property
    def principal(self) -> Principal:
        return self.settings.principal

    @property
    def operator(self) -> Principal:
        """The principal for the work of an installation's operator: reconcile, rebuild.

        Whoever may write the embedded store's file can do anything to it, so its user is its operator. A shared
        database knows no such thing: there the settings have to say so.
        """
        from dataclasses import replace

        from nexus.engine.wiring import is_postgres

        if is_postgres(self.settings):
            return self.principal
        return replace(self.principal, is_admin=True)

    def require_operator(self, command: str) -> None:
        """Raise `NotAllowed` unless this user is an operator; the audit log then says what was refused."""
        if not self.operator.is_admin:
            self.engine.refusals.require_operator(self.operator, command)

    @property
    def engine(self) -> Engine:
        """The whole engine; for commands that change something or ask a provider."""
        if self._engine is None:
            import logging

            from nexus.engine.wiring import open_engine

            # What libraries log is for their users, not for ours: errors reach these as errors.
            if not logging.getLogger().handlers:
                logging.getLogger().addHandler(logging.NullHandler())
            self._engine = open_engine(self.settings, given=self._given, door=self.door)
        return self._engine

    @cached_property
    def registry(self) -> Providers:
        """The providers, for commands that ask about these and not about sandboxes: no store is opened."""
        if self._engine is not None:
            return self._engine.providers
        from nexus.engine.registry import Providers

        return Providers(self.settings, given=self._given)

    @property
    def store(self) -> BodyKeepingStore:
        """The event store; for commands that read the log."""
        if self._engine is not None:
            return cast("BodyKeepingStore", self._engine.store)  # `open_engine` opened it as this does
        if self._store is None:
            from nexus.engine.wiring import open_store

            self._store = open_store(self.settings)
        return self._store

    @cached_property
    def reading(self) -> Reading:
        """The store at one moment; for commands that need no right to write and must not make anything."""
        from nexus.engine.wiring import open_reading

        return open_reading(self.settings)

    @cached_property
    def queries(self) -> SandboxQueries:
        """The read models alone: the quick way for commands that only look."""
        from nexus.projections.queries import SandboxQueries

        return SandboxQueries(self.store.views if self._is_open else self._views)

    @property
    def _is_open(self) -> bool:
        """Whether there is a store, which then serves for looking, too."""
        return self._engine is not None or self._store is not None

    @cached_property
    def _views(self) -> SQLiteViews | PostgresViews:
        from nexus.engine.wiring import open_views

        return open_views(self.settings)

    @cached_property
    def bodies(self) -> Bodies:
        """Kept code and output of runs; for commands that read or erase them."""
        from nexus.engine.wiring import open_bodies

        return open_bodies(self.settings, self.store, self.queries, door=self.door)

    @cached_property
    def history(self) -> History:
        """Questions to the past, straight from the log."""
        from nexus.engine.history import History

        return History(self.store, self.queries)

    def now(self) -> datetime:
        """The store's time."""
        return (self.store if self._is_open else self._views).now()

    def close(self) -> None:
        """Let go of what was opened."""
        if "registry" in self.__dict__:
            self.registry.close()
        if "reading" in self.__dict__:
            self.reading.close()
        if self._engine is not None:
            self._engine.close()
        if self._store is not None:
            self._store.close()
        if "_views" in self.__dict__:
            self._views.close()


pass_session = click.make_pass_decorator(Session)
