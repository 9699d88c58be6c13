"""A sealer beside the writers, in a process of its own: `python -m scripts.bench_parts._sealing STORE SECONDS`.

Seals every so many seconds until its stdin ends; `STORE` is a SQLite file or a postgresql:// address.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from nexus.adapters.stores.postgres import PostgresStore
from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.domain.ports import EventStore
from nexus.engine.audit.sealer import Sealer


def main(store: str, seconds: float) -> None:
    opened: EventStore = PostgresStore(store) if store.startswith("postgresql://") else SQLiteStore(Path(store))
    sealer, sealed = Sealer(opened), 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], seconds)[0]:
        sealed += sealer.catch_up()
    opened.close()
    print(sealed, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
