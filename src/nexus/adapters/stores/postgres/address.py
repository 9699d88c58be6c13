"""Where the database is, taken from its URL and never shown with the password in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from nexus.domain.errors import ConfigurationError

CONNECT_SECONDS: Final = 5
LOCK_SECONDS: Final = 5
"""How long a statement waits for another session's lock before it is refused."""
IDLE_IN_TRANSACTION_SECONDS: Final = 5
"""How long a session that froze within a transaction may keep its locks."""

_SESSION: Final = {
    "TimeZone": "UTC",
    "client_min_messages": "warning",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
}
_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "nexus",
    # A server that vanished without a word is noticed within half a minute, not after two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_ALWAYS: Final = {"client_encoding": "UTF8"}
_HINT: Final = "Give postgresql://user@host:port/database; characters like @ / : in a password are percent-encoded."


class Address:
    """A checked URL. `str` and `repr` show user, host and database only."""

    def __init__(self, url: str) -> None:
        """Raises `ConfigurationError` that quotes nothing of the URL."""
        authority, _, path = url.partition("://")[2].partition("?")[0].partition("/")
        if "@" in path or authority.count("@") > 1:
            # libpq would take a part of the password for the host and print it in its error.
            raise ConfigurationError("NEXUS_DATABASE_URL cannot be understood", hint=_HINT)
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ConfigurationError("NEXUS_DATABASE_URL cannot be understood", hint=_HINT) from None
        if re.fullmatch(r"[0-9,]*", str(given.get("port") or "")) is None:
            raise ConfigurationError("NEXUS_DATABASE_URL cannot be understood: its port is no number", hint=_HINT)
        self._secrets = [str(given[name]) for name in ("password", "sslpassword") if given.get(name)]
        settings = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        self._parameters = {**_DEFAULTS, **given, "options": f"{settings} {given.get('options') or ''}".strip()}
        user, host, port = (given.get(name) for name in ("user", "host", "port"))
        database = given.get("dbname") or user or os.environ.get("PGDATABASE", "")
        self._shown = f"postgresql://{f'{user}@' if user else ''}{host or ''}{f':{port}' if port else ''}/{database}"

    def parameters(self, **more: Any) -> dict[str, Any]:
        """What libpq is given, the password included."""
        return {**self._parameters, **_ALWAYS, **more}

    def scrubbed(self, text: str) -> str:
        """A message of libpq or the server on one line, without the password."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        text = re.sub(r"\s+", " ", text).strip()
        return text if len(text) <= 300 else f"{text[:299]}…"

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Address({self._shown!r})"
