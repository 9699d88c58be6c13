"""Contract: following the log while others write to it."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import ClassVar

from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore
from nexus.testing.store_contract.base import (
    OpenStore,
    StoreContractBase,
    envelope,
    everything,
    new_stream,
    positions_of,
    stretch,
)
from nexus.testing.store_contract.writers import write


class TailContract(StoreContractBase):
    storm: ClassVar[tuple[int, int, int]] = (4, 2, 40)
    """Writing processes, threads in each, appends of each thread."""

    def test_wait_tells_of_what_is_there(self, store: EventStore) -> None:
        (placed,) = store.append([envelope(new_stream(), 1)])
        assert store.wait(0, 0.0)
        assert not store.wait(positions_of([placed])[0], 0.0)
        assert not store.wait(positions_of([placed])[0] + 1000, 0.02)

    def test_wait_wakes_for_an_append_of_the_same_store(self, store: EventStore) -> None:
        self._wakes(store, store)

    def test_wait_wakes_for_an_append_of_another(self, store: EventStore, other: EventStore) -> None:
        self._wakes(store, other)

    def _wakes(self, waiting: EventStore, writing: EventStore) -> None:
        for number in range(5):
            head = waiting.head()
            begun = threading.Event()

            def follow(head: int = head, begun: threading.Event = begun) -> bool:
                begun.set()
                return waiting.wait(head, self.patience)

            with ThreadPoolExecutor(1) as pool:
                woken = pool.submit(follow)
                assert begun.wait(self.patience)
                if number % 2:
                    time.sleep(0.03)  # asleep already: the other order of the race
                started = time.monotonic()
                writing.append([envelope(new_stream(), 1)])
                assert woken.result(self.patience)
                assert time.monotonic() - started < self.patience / 2
            assert waiting.head() > head

    def test_nothing_is_missed_and_nothing_comes_out_of_order(self, store: EventStore, reopen: OpenStore) -> None:
        processes, threads, appends = self.storm
        finished = threading.Event()

        def tail() -> list[Envelope]:
            mine = reopen()
            seen: list[Envelope] = []
            try:
                while True:
                    last_round = finished.is_set()
                    page = mine.read(positions_of(seen[-1:])[0] if seen else 0, 7)
                    seen.extend(page)
                    if not page:
                        if last_round:
                            return seen
                        mine.wait(positions_of(seen[-1:])[0] if seen else 0, 0.05)
            finally:
                mine.close()

        shared = new_stream()
        with (
            ThreadPoolExecutor(2) as readers,
            ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as writers,
        ):
            tails = [readers.submit(tail) for _ in range(2)]
            try:
                runs = [writers.submit(write, reopen, threads, appends, shared) for _ in range(processes)]
                acknowledged = [positions for run in runs for positions in run.result(self.patience)]
            finally:
                finished.set()
            seen = [tail.result(self.patience) for tail in tails]
        stored = everything(store)
        assert len(acknowledged) == processes * threads * appends
        assert sorted(position for positions in acknowledged for position in positions) == positions_of(stored)
        assert all(positions == sorted(positions) for positions in acknowledged)
        for log in seen:
            assert positions_of(log) == positions_of(stored)
        streams: dict[str, list[int]] = {}
        for one in stored:
            streams.setdefault(one.originator_id, []).append(one.originator_version)
        assert all(versions == list(range(1, len(versions) + 1)) for versions in streams.values())
        assert streams[shared]

    def test_head_never_runs_ahead_of_what_can_be_read(self, store: EventStore, other: EventStore) -> None:
        writing = threading.Event()

        def write_on() -> None:
            stream, version = new_stream(), 0
            while not writing.is_set():
                other.append(stretch(stream, version + 1, version + 3))
                version += 3

        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(write_on)
            try:
                for _ in range(100):
                    head = store.head()
                    assert head == 0 or positions_of(store.read(head - 1, upto=head)) == [head]
            finally:
                writing.set()
            run.result(self.patience)
