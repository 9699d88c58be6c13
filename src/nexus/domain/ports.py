"""The store's ports: what the engine and the projections ask of an event store, as values and protocols."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    # Read paths import this module for its values alone and must not load the events' validation with it.
    from nexus.domain.events import Envelope, Fact
    from nexus.domain.sealing import Written

Scalar = str | int | float | None
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A read model's table in the portable subset: column name → `text`, `integer` or `real`.

    `internal` is one for the installation's own work: where the database knows tenants, none of them sees it.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    internal: bool = False


@dataclass(frozen=True, slots=True)
class RowWrite:
    """Insert a row, or update the given columns of the row with this key.

    `newer` names an integer column that only ever grows: a row that holds a higher value is left alone.
    `values` None deletes the row with the key in `key`. `known` says that the row is there: a missing one is not made,
    and the database need not look out for another writer's insert.
    """

    table: str
    key: Mapping[str, Scalar]
    values: Mapping[str, Scalar] | None
    newer: str | None = None
    known: bool = False


@dataclass(frozen=True, slots=True)
class RowsWrite:
    """Insert or update many rows with the same columns; no two of them have the same key."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    rows: Sequence[tuple[Scalar, ...]]
    """The key's values first, then the columns'."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a stream at a version, as bytes of a format that the writer versions."""

    originator_id: str
    originator_version: int
    schema_version: int
    state: bytes


class ViewStore(Protocol):
    """Where read models live."""

    def query(self, sql: str, params: Mapping[str, Scalar] | None = None) -> list[dict[str, Any]]:
        """Rows of a SELECT in the portable subset, with `:name` parameters."""
        ...

    def create(self, tables: Sequence[Table]) -> None:
        """Make these tables where they are missing."""
        ...

    def position(self, projection: str) -> int | None:
        """Up to where a projection has followed the log; None when it never began."""
        ...

    def advance(
        self,
        projection: str,
        expected: int | None,
        position: int,
        rows: Sequence[RowWrite | RowsWrite],
        *,
        durable: bool = True,
    ) -> bool:
        """Write rows and position in one transaction, if the position is still `expected`; else change nothing.

        Unless `durable`, a crash of the database may take the last of these back, rows and positions alike: enough for
        what is written from the log.
        """
        ...

    def begin(self, tables: Sequence[Table], projection: str, *, indexed: bool = True, keyed: bool = True) -> None:
        """Make these tables anew, empty, with the projection at position 0; one transaction.

        Those that are not `indexed` get their indexes by `complete` afterwards, which costs less than keeping them up
        meanwhile; those that are not `keyed` their key, too, if the store can: they take nothing but `fill`.
        """
        ...

    def fill(self, table: Table, projection: str, pages: Iterable[tuple[int, Sequence[tuple[Scalar, ...]]]]) -> bool:
        """Write rows into a table that was just begun: all of them new, with the values of all its columns.

        Takes them with the positions up to which they were read from the log, some pages in one transaction; False,
        and no more written, when another wrote with the same key. A value that no column takes raises `ValueError`,
        `TypeError` or `OverflowError`; a row that was there before what the database says, here or in `complete`. A
        crash may take the last rows back, as in `advance`.
        """
        ...

    def complete(self, tables: Sequence[Table]) -> None:
        """Make what these tables lack of their keys and indexes; a table that is gone took another's place."""
        ...

    def swap(
        self,
        renames: Mapping[str, str],
        *,
        built: str,
        expected: int,
        projection: str,
        forget: Sequence[str],
        finish: Callable[[int], tuple[int, Sequence[RowWrite | RowsWrite]]],
    ) -> int | None:
        """Put rebuilt tables in place, {built aside: live}, in one transaction during which nothing is appended.

        Does nothing and returns None unless `built` still stands at `expected`. Otherwise `finish(expected)` reads
        what was appended since and returns the last position and the rows that the tables aside still lack; then
        the old tables go, `projection` stands at that position, which is returned, and the positions of `built` and
        of `forget` are forgotten.
        """
        ...

    def drop(self, tables: Sequence[str], forget: Sequence[str]) -> None:
        """Remove these tables where they are there, and forget these projections' positions; one transaction."""
        ...


class EventStore(Protocol):
    """Append-only streams with a global position that a tailing reader can trust. Thread-safe."""

    @property
    def installation(self) -> str:
        """A stable id of this database, given at its first use."""
        ...

    @property
    def views(self) -> ViewStore: ...

    def now(self) -> datetime:
        """The store's clock: aware, UTC."""
        ...

    def append(
        self,
        envelopes: Sequence[Envelope],
        *,
        rows: Sequence[RowWrite] = (),
        snapshots: Sequence[Snapshot] = (),
    ) -> list[Envelope]:
        """Store events of one or several streams, rows and snapshots in one transaction; returns them placed.

        Raises `StreamConflict` when a version is taken by another writer's event (an event that is already
        stored by this very call, after a lost answer, is success), `StoreUnavailable` when nothing was stored.
        """
        ...

    def load(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[Envelope]:
        """Events of one stream by version: after < version <= upto."""
        ...

    def history(self, stream: str, *, after: int = 0, upto: int | None = None) -> Iterator[Fact]:
        """What `load` returns, reduced to what a state is folded from and read one by one: several times faster.

        Raises `UnreadableEvent` where it comes to such an event.
        """
        ...

    def last(self, stream: str) -> Envelope | None: ...

    def snapshot(self, stream: str) -> Snapshot | None:
        """The newest snapshot of a stream."""
        ...

    def read(
        self, after: int, limit: int = 1000, *, upto: int | None = None, topics: Sequence[str] = ()
    ) -> list[Envelope]:
        """Events by position: after < position <= upto, none ever missed by asking for what follows the last.

        `topics` leaves out all others; none given means every one.

        One that this version cannot read stands there as `nexus.domain.events.Unread`; `load` and `last` raise
        `UnreadableEvent` instead, because a state with a gap is no state.
        """
        ...

    def raw(
        self, after: int, limit: int = 1000, *, upto: int | None = None, columns: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        """Like `read`, undecoded, for sealing, verifying and rebuilding: these columns, or all of `RAW_COLUMNS`."""
        ...

    def pages(self, size: int, *, columns: Sequence[str] = ()) -> Generator[Sequence[Sequence[Any]], None, None]:
        """The whole log, as `raw` has it, page by page, to the end that it has when it is reached.

        While the caller is busy with one page, the database may work on the next.
        """
        ...

    def head(self) -> int:
        """The last position that a reader may trust; 0 when there is none."""
        ...

    def wait(self, after: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds until there is something after this position."""
        ...

    def close(self) -> None: ...


class Again(NamedTuple):
    """How another process opens the same moment of a store."""

    open: Callable[[], Reading]
    """Can be pickled, and may hold a password."""
    forks: bool
    """Whether a fork of this process can call it. SQLite's connections do not bear one."""


class Reading(Protocol):
    """A store at one moment, for reading only: whatever is written meanwhile is not seen, and nothing can be."""

    @property
    def installation(self) -> str:
        """See `EventStore.installation`; empty where nothing was ever stored."""
        ...

    def rows(
        self, statement: str, params: Mapping[str, Scalar] | None = None, *, lenient: bool = False
    ) -> Iterator[Sequence[Any]]:
        """Rows of a SELECT in the portable subset, with `:name` parameters, as they come: never all in memory.

        `lenient` reads text that is none, which a store that somebody tampered with may hold, with lone surrogates.
        """
        ...

    def written(self, after: int, upto: int) -> Iterator[Written]:
        """The events after < position <= upto, in order, as `nexus.domain.sealing` wants them, some at a time.

        The database writes them from the very columns. Nothing else may be asked before these are at their end, or
        closed. Raises `ValueError` or `TypeError` where a column holds what no event has, and `StoreError`.
        """
        ...

    def again(self) -> Again | None:
        """What opens this very moment in another process too, as long as this one is open; None where nothing does.

        What it opens is of this moment only if `same_moment` says so afterwards.
        """
        ...

    def same_moment(self) -> bool:
        """Whether what `again` has opened by now is of this moment. Raises `StoreError`."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    """Durations only; points in time come from the store."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class Liveness(Protocol):
    """Who holds an operation, and whether that holder still lives."""

    @property
    def me(self) -> str:
        """A name for this process that no other process ever had."""
        ...

    def is_dead(self, holder: str) -> bool:
        """True only with proof; a holder on another machine is never known to be dead."""
        ...
