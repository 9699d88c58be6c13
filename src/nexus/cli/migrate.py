"""`nexus migrate`: the tables of a Postgres store."""

from __future__ import annotations

import click

from nexus.cli.options import common
from nexus.cli.session import Session, pass_session


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when there is something to do.")
@click.option(
    "--application-role",
    metavar="ROLE",
    help="Grant this role what API processes and workers need, and nothing that could change an event.",
)
@common
@pass_session
def migrate(session: Session, check: bool, application_role: str | None) -> None:
    """Bring a Postgres store up to date: the one command that makes or changes its tables.

    Give it the address of the tables' owner in NEXUS_DATABASE_URL. Running processes of the version before go on
    until they are started anew. Any number may migrate at once. The embedded store needs no such step.
    """
    from nexus.engine.wiring import is_postgres

    if not is_postgres(session.settings):
        _say(session, "The embedded store is brought up to date whenever it is opened.", version=None, applied=[])
        return
    from nexus.adapters.stores.postgres import schema
    from nexus.adapters.stores.postgres.address import Address
    from nexus.projections.positions import require_prepared
    from nexus.projections.projector import Projector, prepare
    from nexus.projections.tables import TABLES

    address = Address(session.settings.database_url)
    if check:
        schema.require_migrated(address, TABLES)
        require_prepared(session.store.views)
        _say(session, f"Schema version {schema.VERSION}: nothing to do.", version=schema.VERSION, applied=[])
        return
    with session.output.progress("Migrating"):
        done = schema.migrate(address, TABLES, application_role)
        prepare(session.store)
        Projector(session.store).catch_up()
    for name in done.applied:
        session.output.hint(f"Applied {name}")
    if done.epoch_raised:
        session.output.warn("The log came from a server that had counted further; positions go on where it stood.")
    _say(session, f"Schema version {done.version}.", version=done.version, applied=list(done.applied))


def _say(session: Session, text: str, *, version: int | None, applied: list[str]) -> None:
    if session.output.json:
        session.output.value({"version": version, "applied": applied})
    else:
        session.output.line(text)
