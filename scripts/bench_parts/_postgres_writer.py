"""One of several writers, in a process of its own: `python -m scripts.bench_parts._postgres_writer URL`.

Reads lines such as `append 25` from stdin, does that, and answers `done`.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta

import psycopg

from nexus.adapters.clock import MonotonicClock
from nexus.adapters.identity import ProcessOrigin
from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.postgres.statements import GIVEN
from nexus.adapters.stores.recording import EnvelopeMapper
from nexus.domain import commands as cmd
from nexus.domain.decisions import decide
from nexus.domain.events import Envelope
from nexus.domain.ports import RowWrite
from nexus.domain.sandbox import Sandbox, fold, stream_id
from nexus.domain.values import Principal
from nexus.engine.streams import Cause, Streams
from nexus.projections import inline
from scripts.bench_parts._story import life, steps

TABLE = """
CREATE TABLE IF NOT EXISTS raw_events (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id text COLLATE "C" NOT NULL UNIQUE,
  originator_id text COLLATE "C" NOT NULL, originator_version bigint NOT NULL, topic text COLLATE "C" NOT NULL,
  schema_version integer NOT NULL, state bytea NOT NULL, occurred_at text COLLATE "C" NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), actor text NOT NULL, tenant_id text NOT NULL,
  agent_id text, command text NOT NULL, correlation_id text NOT NULL, causation_id text,
  origin text NOT NULL,
  UNIQUE (originator_id, originator_version)
)
"""
_INSERT = (
    f"INSERT INTO raw_events ({', '.join(GIVEN)}) VALUES ({', '.join(['%s'] * len(GIVEN))})"
    " RETURNING position, recorded_at"
)
_LONG = 1_000_000


class Writer:
    """What one writer can do. Each act is one event in one transaction."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url)
        self._raw = psycopg.connect(url, autocommit=True)
        self._events, self._listed, self._plain = life(_LONG), steps(_LONG), life(_LONG)
        self._mapper = EnvelopeMapper()
        self._streams = Streams(self.store, MonotonicClock(), ProcessOrigin("bench"))
        self._cause = Cause.of(Principal(user_id="bench"), "run")
        self._raw_ahead: deque[tuple[object, ...]] = deque()
        self._ahead: deque[Envelope] = deque()
        self._listed_ahead: deque[tuple[Envelope, list[RowWrite]]] = deque()
        self._runs = itertools.count()
        self._open = ""
        self._state = self._new_sandbox()
        self._saved = self._new_sandbox()

    def _new_sandbox(self) -> Sandbox:
        for envelope, before, state in steps(0):
            self.store.append([envelope], rows=inline.rows(state, before))
        return state

    def prepare(self, count: int = 200) -> None:
        """Make what is to be written: that is not the work of who writes it."""
        for envelope, _ in itertools.islice(self._plain, count):
            record = self._mapper.to_stored_event(envelope)
            self._raw_ahead.appendleft(tuple(getattr(record, name) for name in GIVEN))
        self._ahead.extendleft(envelope for envelope, _ in itertools.islice(self._events, count))
        listed = itertools.islice(self._listed, count)
        self._listed_ahead.extendleft((envelope, inline.rows(state, before)) for envelope, before, state in listed)

    def raw(self) -> None:
        """A prepared INSERT of the same columns under the same indexes, by psycopg alone."""
        self._raw.execute(_INSERT, self._raw_ahead.pop(), prepare=True).fetchone()

    def append(self) -> None:
        """The event alone."""
        self.store.append([self._ahead.pop()])

    def pour(self) -> None:
        """The event alone, made on the spot: for those who want very many."""
        self.store.append([next(self._events)[0]])

    def listed(self) -> None:
        """An append with the rows of the list and of what is due."""
        envelope, rows = self._listed_ahead.pop()
        self.store.append([envelope], rows=rows)

    def save(self) -> None:
        """Decide, fold, append: what the library's `Application.save` of an aggregate at hand does."""
        now = self.store.now()
        events = decide(self._next_command(), self._saved, now)
        stream = stream_id(self._saved.sandbox_id)
        envelopes = self._streams._envelopes(stream, self._saved.version, events, self._cause, now, "default")
        self._saved = fold(self._saved, envelopes) or self._saved
        self.store.append(envelopes)

    def command(self) -> None:
        """Everything that the engine does for a command: load, decide, fold, append with the rows of all views."""
        self._streams.execute(self._state.sandbox_id, self._next_command(), self._cause)

    def _next_command(self) -> cmd.Command:
        if self._open:
            ended, self._open = self._open, ""
            return cmd.LoseExecution(execution_id=ended, reason="bench")
        self._open = f"ex_{next(self._runs)}"
        return cmd.StartExecution(
            execution_id=self._open,
            language="python",
            code_sha256="0" * 64,
            code_bytes=20,
            timeout=30,
            lease_until=self.store.now() + timedelta(minutes=1),
            holder="bench:1",
        )

    def close(self) -> None:
        self._raw.close()
        self.store.close()


def main(url: str) -> None:
    writer = Writer(url)
    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        if name == "prepare":
            writer.prepare(int(count))
        else:
            act: Callable[[], None] = getattr(writer, name)
            for _ in range(int(count)):
                act()
        print("done", flush=True)
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
