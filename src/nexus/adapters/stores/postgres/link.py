"""A connection of an ordinary process, and the short way to run one of the store's own statements on it.

The driver's cursors look at each parameter, find its type, and copy each answer into a cursor: 60 µs of processor time
for each statement, half of what an append costs its process. Our statements are few, known, and given texts, so they go
to libpq through the driver's own connection: same protocol, same errors, same Ctrl-C. ADR 0030 has the figures.
"""

from __future__ import annotations

import select
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import capabilities, generators
from psycopg.adapt import AdaptersMap, Buffer, Loader, Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from nexus.adapters.stores.postgres import statements
from nexus.adapters.stores.postgres.schema import ALL

_QUIET: Final = 1.0
"""Seconds that a connection is trusted to be still there after its last use."""
_LIFETIME: Final = 1800.0
"""Seconds after which a connection is replaced: backends keep what their caches have grown to."""
_PREPARED: Final = 300
"""Prepared statements that a connection keeps; the one used longest ago makes room."""

_PAGE: Final = 200
"""Rows that are worked on at once where the server sends more meanwhile."""
_IN_PAGES: Final = capabilities.has_stream_chunked()
"""libpq does that from 17 on; with an older one, all rows are one page."""

_DONE: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.TUPLES_CHUNK)
_TEXT: Final = int(Format.TEXT)
_BINARY: Final = int(Format.BINARY)

Parameter = str | bytes | int | float | None
"""What `Link.run` takes. Whatever is no `bytea` goes as text, and the server finds out its type: one prepared statement
serves small, large and absent numbers."""


class _Number(Loader):
    """NUMERIC, which sums of integers have, as the numbers that SQLite gives."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data)
        return int(text) if text.lstrip(b"-").isdigit() else float(text)


_ADAPTERS: Final = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_loader("numeric", _Number)


class _Context:
    adapters = _ADAPTERS
    connection = None


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit, checked when it was opened. For one thread at a time."""

    scope = ALL
    """What row-level security shows it; `schema.SCOPE` in the session."""
    epoch = 0
    opened = 0.0
    used = 0.0
    uses = 0
    _statements: OrderedDict[str, bytes]
    _numbered = 0

    @classmethod
    def to(cls, parameters: dict[str, Any]) -> Link:
        """Connect; raises psycopg's errors."""
        link = cls.connect(**parameters, autocommit=True, context=_Context())
        link.prepare_threshold = None  # it would drop ours with its own, after each statement that drops anything
        link.opened = time.monotonic()
        link._statements = OrderedDict()
        return link

    def run(self, statement: str, parameters: Sequence[Parameter] = (), *, binary: bool = False) -> list[Any]:
        """Execute a statement with `$1` for its parameters, prepared; returns its rows as tuples.

        `binary` asks for values in the server's own form, which is the quicker way for many or large ones. Raises
        psycopg's errors, and `ValueError` for a text or number that cannot be stored.
        """
        return self._rows(self.send(statement, parameters, binary=binary))

    def pages(self, statement: str, parameters: Sequence[Parameter] = (), size: int = _PAGE) -> Iterator[list[Any]]:
        """Like `run` with `binary`, in pages: while one is worked on, the server makes and sends the next.

        Nothing else can be asked of this connection until the last page was taken.
        """
        self._ask(statement, parameters, binary=True)
        if _IN_PAGES:
            self.pgconn.set_chunked_rows_mode(size)
        self.wait(generators.send(self.pgconn))
        transformer = Transformer(self)
        begun = False
        while (result := self.wait(generators.fetch(self.pgconn))) is not None:
            if result.status not in _DONE:
                self.wait(generators.fetch_many(self.pgconn))  # the end of it
                raise psycopg.errors.error_from_result(result)
            if result.ntuples:
                transformer.set_pgresult(result, set_loaders=not begun)
                begun = True
                yield transformer.load_rows(0, result.ntuples, tuple)

    def run_named(self, statement: str, parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
        """The same; returns its rows as dictionaries."""
        result = self.send(statement, parameters)
        names = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
        return [dict(zip(names, row, strict=True)) for row in self._rows(result)]

    def _rows(self, result: PGresult) -> list[Any]:
        if not result.nfields:
            return []
        transformer = Transformer(self)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def send(self, statement: str, parameters: Sequence[Parameter], *, binary: bool = False) -> PGresult:
        """The same; returns the answer as libpq has it."""
        self._ask(statement, parameters, binary=binary)
        return self._answer()

    def _ask(self, statement: str, parameters: Sequence[Parameter], *, binary: bool) -> None:
        values: list[bytes | None] = []
        formats: list[int] = []
        for value in parameters:
            if type(value) is str and "\0" not in value:
                values.append(value.encode())
                formats.append(_TEXT)
            elif value is None or isinstance(value, bytes):
                values.append(value)
                formats.append(_BINARY)
            else:
                values.append(statements.as_text(value).encode())
                formats.append(_TEXT)
        self.pgconn.send_query_prepared(
            self._name_of(statement), values, param_formats=formats, result_format=_BINARY if binary else _TEXT
        )

    def begin(self, statement: str) -> None:
        """Begin a statement without parameters that is not worth preparing; `end` waits for it."""
        self.pgconn.send_query(statement.encode())

    def end(self) -> None:
        """Raises psycopg's errors."""
        self._answer()

    def _name_of(self, statement: str) -> bytes:
        if statement in self._statements:
            self._statements.move_to_end(statement)
            return self._statements[statement]
        if len(self._statements) >= _PREPARED:
            _, oldest = self._statements.popitem(last=False)
            self.begin(f"DEALLOCATE {oldest.decode()}")
            self.end()
        self._numbered += 1
        name = f"nexus_{self._numbered}".encode()
        self.pgconn.send_prepare(name, statement.encode())
        self._answer()
        self._statements[statement] = name
        return name

    def _answer(self) -> PGresult:
        result: PGresult = self.wait(generators.execute(self.pgconn))[-1]
        if result.status not in _DONE:
            raise psycopg.errors.error_from_result(result)
        return result

    def __del__(self, *_: Any) -> None:
        """One of a store that nobody closed goes in silence, as the embedded store's do; psycopg would complain."""

    def is_fit(self) -> bool:
        """Whether it can be used again, as far as can be told without asking the server.

        Nothing is to be read from an idle connection but the news of its end.
        """
        now = time.monotonic()
        if self.closed or now - self.opened > _LIFETIME:
            return False
        if now - self.used < _QUIET:
            return True
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)
