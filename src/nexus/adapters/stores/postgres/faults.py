"""What Postgres reports, said so that its reader knows what to do, and never with the password in it."""

from __future__ import annotations

from typing import Final

import psycopg

from nexus.adapters.stores.postgres.address import Address
from nexus.domain.errors import SchemaMismatch, StoreError, StoreUnavailable

_MIGRATE: Final = "Run `nexus migrate` with the address of the tables' owner."

_UNAVAILABLE: Final[dict[str, tuple[str, str]]] = {
    "25006": ("is read-only", "Is it a standby? Use the address of the primary."),
    "28000": ("refuses this user", "Check the user in NEXUS_DATABASE_URL and the server's pg_hba.conf."),
    "28P01": ("refuses the password", "Check user and password in NEXUS_DATABASE_URL."),
    "3D000": ("does not exist", "Create the database, then run `nexus migrate`."),
    "53100": ("cannot grow: its disk is full", "Free some space on the server and try again."),
    "53200": ("is out of memory", "Look after the server's memory and try again."),
    "53300": ("has no connection left", "Raise max_connections, or run fewer processes."),
    "55P03": ("is held up by another session's lock", "Look who holds it (`nexus doctor` tells), then try again."),
    "57014": ("cancelled the statement", "Try again; if it takes too long each time, look at statement_timeout."),
    "57P03": ("is starting up or shutting down", "Try again in a moment."),
}
"""By SQLSTATE: what is said of the database, and what to do."""

_LACKING: Final = {"42P01", "42703", "42883", "42704", "3F000", "42804", "42P10"}
"""Undefined tables, columns, functions, types, schemas; columns of another type; keys that are not there."""


class ConnectionLost(StoreUnavailable):
    """The connection broke in the middle: what was asked may have been done."""

    reused = False
    """Whether the connection had been open before, so that a new one may do better."""


class StalePlan(StoreUnavailable):
    """A statement was prepared for a table that has been replaced since. Nothing was done."""


def lost(error: psycopg.Error, address: Address) -> ConnectionLost:
    return ConnectionLost(
        f"The connection to the database {address} broke: {address.scrubbed(str(error))}",
        hint="Is the server running? Commands work again as soon as it is.",
    )


def unavailable(error: psycopg.Error, address: Address) -> StoreError:
    """The store's error for a failure that the server or libpq reports."""
    state = error.sqlstate or ""
    reason = address.scrubbed(error.diag.message_primary or str(error))
    if state == "0A000" and "cached plan" in reason:
        return StalePlan(reason)
    if state in _LACKING:
        return SchemaMismatch(f"The database {address} lacks what this program needs: {reason}", hint=_MIGRATE)
    if state == "42501":
        return StoreError(
            f"The database {address} does not allow this: {reason}",
            hint="Grant the role what it needs with `nexus migrate --application-role`; what changes tables "
            "(migrate, projections rebuild, verify) needs the address of their owner.",
        )
    if state in _UNAVAILABLE:
        said, hint = _UNAVAILABLE[state]
        return StoreUnavailable(f"The database {address} {said}: {reason}", hint=hint)
    if not state:
        return _unreachable(reason, address)
    return StoreUnavailable(f"The database {address} reports: {reason} ({state})")


def _unreachable(reason: str, address: Address) -> StoreUnavailable:
    """libpq gives no SQLSTATE for a failed connect, whatever the server's reason was."""
    for pattern, state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("no pg_hba.conf entry", "28000"),
        ('role "', "28000"),
        ("too many clients", "53300"),
        ("remaining connection slots", "53300"),
        ("database system is ", "57P03"),
        ("does not exist", "3D000"),
    ):
        if pattern in reason:
            said, hint = _UNAVAILABLE[state]
            return StoreUnavailable(f"The database {address} {said}: {reason}", hint=hint)
    return StoreUnavailable(
        f"The database {address} cannot be reached: {reason}",
        hint="Is the server running, and is NEXUS_DATABASE_URL right? Commands work again as soon as it answers.",
    )
