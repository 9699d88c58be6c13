"""A reader that waits is woken by its own process's appends at once, not by its next look."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus.adapters.stores.sqlite import SQLiteStore
from nexus.adapters.stores.sqlite import store as stores
from nexus.testing.store_contract.base import envelope, new_stream
from tests.support.waiting import until


def test_an_append_wakes_whoever_waits_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_SHORTEST_LOOK", 60.0)
    monkeypatch.setattr(stores, "_LONGEST_LOOK", 60.0)
    store = SQLiteStore(tmp_path / "nexus.db")
    database = store.views._database
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(store.wait, 0, 60.0) for _ in range(3)]
        until(lambda: database._waiting == 3)
        started = time.monotonic()
        store.append([envelope(new_stream(), 1)])
        assert all(wait.result(60) for wait in waits)
        assert time.monotonic() - started < 30
    assert database._waiting == 0
    store.close()


def test_a_wait_that_ends_in_vain_ends_in_time(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "nexus.db")
    started = time.monotonic()
    assert not store.wait(0, 0.1)
    assert 0.1 <= time.monotonic() - started < 30
    store.close()
