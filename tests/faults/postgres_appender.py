"""A process that appends through crashes of its server: `python -m tests.faults.postgres_appender URL STREAM`.

Prints each event's position once its append has returned, or the version and `?` where nobody could tell it. Goes on
until its stdin is closed.
"""

from __future__ import annotations

import select
import sys

from nexus.adapters.stores.postgres import PostgresStore
from nexus.domain.errors import StoreOutcomeUnknown, StoreUnavailable, StreamConflict
from nexus.testing.store_contract.base import envelope


def main(url: str, stream: str) -> None:
    store = PostgresStore(url)
    version = 1
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            (placed,) = store.append([envelope(stream, version)])
        except StoreUnavailable:
            continue  # nothing was recorded
        except StoreOutcomeUnknown:
            print(f"{version} ?", flush=True)
        except StreamConflict:
            print(f"{version} conflict", flush=True)  # nobody else writes here
            return
        else:
            print(f"{version} {placed.position}", flush=True)
        version += 1
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
