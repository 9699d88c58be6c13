"""Contract: sealed bodies beside the log, and their erasure in the append that records it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from nexus.domain.bodies import MAX_SEALED, BodyKeepingStore, BodyKey, BodyKind, BodyStore, SealedBody, Stock, erasure
from nexus.domain.errors import StreamConflict
from nexus.domain.ports import EventStore
from nexus.testing.store_contract.base import StoreContractBase, envelope, everything, new_stream

THEN = datetime(2026, 5, 1, 12, tzinfo=UTC)


def new_key(sandbox_id: str = "sb_1", tenant_id: str = "acme") -> BodyKey:
    return BodyKey(uuid.uuid4().hex, sandbox_id, tenant_id, "master", b"\x00wrapped\xff")


def sealed(key: BodyKey, run: str = "ex_1", kind: BodyKind = BodyKind.CODE, data: bytes = b"\x00\xff") -> SealedBody:
    return SealedBody(key.key_id, key.sandbox_id, run, kind, key.tenant_id, THEN, data)


class BodyContract(StoreContractBase):
    @pytest.fixture
    def bodies(self, store: EventStore) -> BodyStore:
        return cast(BodyKeepingStore, store).bodies

    @pytest.fixture
    def others(self, other: EventStore) -> BodyStore:
        """The same bodies for another worker."""
        return cast(BodyKeepingStore, other).bodies

    @staticmethod
    def erase(store: EventStore, sandbox_id: str, executions: Sequence[str] | None = None) -> None:
        store.append([envelope(new_stream(), 1)], rows=erasure(sandbox_id, executions))

    # --- keys ----------------------------------------------------------------------------------------------------
    def test_a_sandbox_has_one_key_and_the_first_one_stays(self, bodies: BodyStore, others: BodyStore) -> None:
        first, second = new_key(), new_key()
        assert bodies.key("sb_1", "acme") is None
        assert bodies.add_key(first) == first
        assert others.add_key(second) == first
        assert others.key("sb_1", "acme") == first

    def test_of_many_who_begin_at_once_all_get_the_same_key(self, bodies: BodyStore, others: BodyStore) -> None:
        found: list[BodyKey] = []
        ready = threading.Barrier(8)

        def begin(store: BodyStore) -> None:
            ready.wait(self.patience)
            found.append(store.add_key(new_key()))

        threads = [threading.Thread(target=begin, args=(store,)) for store in (bodies, others) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.patience)
        assert len(found) == 8
        assert len({key.key_id for key in found}) == 1

    def test_another_tenant_has_no_such_key_and_no_such_body(self, bodies: BodyStore) -> None:
        key = bodies.add_key(new_key())
        assert bodies.put([sealed(key)])
        assert bodies.key("sb_1", "evil") is None
        assert bodies.of("sb_1", "ex_1", "evil") == []
        assert bodies.of("sb_1", "ex_1", "acme") == [sealed(key)]

    # --- bodies --------------------------------------------------------------------------------------------------
    def test_what_is_put_is_found_by_its_run(self, bodies: BodyStore, others: BodyStore) -> None:
        key = bodies.add_key(new_key())
        mine = [sealed(key, kind=kind, data=kind.value.encode()) for kind in BodyKind]
        assert bodies.put(mine[:1])
        assert bodies.put([*mine[1:]])
        assert bodies.put([sealed(key, "ex_2")])
        assert sorted(others.of("sb_1", "ex_1", "acme"), key=lambda body: body.kind) == sorted(
            mine, key=lambda body: body.kind
        )
        assert others.of("sb_1", "ex_3", "acme") == []
        assert bodies.put([]) is True

    def test_the_same_again_changes_nothing(self, bodies: BodyStore) -> None:
        key = bodies.add_key(new_key())
        assert bodies.put([sealed(key, data=b"first")])
        assert bodies.put([sealed(key, data=b"second")])
        assert [body.sealed for body in bodies.of("sb_1", "ex_1", "acme")] == [b"first"]

    def test_the_largest_is_taken_and_a_larger_one_refused_whole(self, bodies: BodyStore) -> None:
        key = bodies.add_key(new_key())
        large = sealed(key, data=bytes(range(256)) * (MAX_SEALED // 256))
        larger = sealed(key, "ex_2", BodyKind.STDOUT, b"x" * (MAX_SEALED + 1))
        assert bodies.put([large])
        with pytest.raises(ValueError, match="cannot be stored"):
            bodies.put([sealed(key, "ex_2"), larger])
        assert bodies.of("sb_1", "ex_1", "acme") == [large]
        assert bodies.of("sb_1", "ex_2", "acme") == []

    def test_without_its_key_nothing_is_put(self, bodies: BodyStore) -> None:
        assert not bodies.put([sealed(new_key())])
        assert bodies.stock() == Stock(0, 0, 0)

    # --- counting ------------------------------------------------------------------------------------------------
    def test_the_stock(self, bodies: BodyStore) -> None:
        one, two = bodies.add_key(new_key("sb_1")), bodies.add_key(new_key("sb_2", "evil"))
        bodies.put([sealed(one, kind=kind, data=b"1234") for kind in BodyKind])
        bodies.put([sealed(one, "ex_2", data=b"12")])
        bodies.put([sealed(two, "ex_3", data=b"1")])
        assert bodies.stock() == Stock(3, 15, 2)
        assert bodies.stock("sb_1") == Stock(2, 14, 1)
        assert bodies.stock("sb_3") == Stock(0, 0, 0)

    def test_the_oldest_runs_first(self, bodies: BodyStore) -> None:
        key, another = bodies.add_key(new_key()), bodies.add_key(new_key("sb_2"))
        for day, run in enumerate(("ex_a", "ex_b", "ex_c")):
            owner = another if run == "ex_b" else key
            at = THEN + timedelta(days=day)
            bodies.put([replace(sealed(owner, run, kind), kept_at=at) for kind in (BodyKind.CODE, BodyKind.STDERR)])
        assert bodies.kept_before(THEN, 10) == {}
        assert bodies.kept_before(THEN + timedelta(days=2), 10) == {"sb_1": ["ex_a"], "sb_2": ["ex_b"]}
        assert bodies.kept_before(THEN + timedelta(days=9), 10) == {"sb_1": ["ex_a", "ex_c"], "sb_2": ["ex_b"]}
        assert bodies.kept_before(THEN + timedelta(days=9), 1) == {"sb_1": ["ex_a"]}

    # --- erasing -------------------------------------------------------------------------------------------------
    def test_everything_of_a_sandbox_goes_with_the_append_that_says_so(
        self, store: EventStore, bodies: BodyStore, others: BodyStore
    ) -> None:
        key, beside = bodies.add_key(new_key()), bodies.add_key(new_key("sb_2"))
        bodies.put([sealed(key, kind=kind) for kind in BodyKind])
        bodies.put([sealed(beside)])
        self.erase(store, "sb_1")
        assert others.key("sb_1", "acme") is None
        assert others.of("sb_1", "ex_1", "acme") == []
        assert others.of("sb_2", "ex_1", "acme") == [sealed(beside)]
        self.erase(store, "sb_1")
        others.scrub()

    def test_single_runs_go_and_the_key_stays(self, store: EventStore, bodies: BodyStore) -> None:
        key = bodies.add_key(new_key())
        for run in ("ex_1", "ex_2", "ex_3"):
            bodies.put([sealed(key, run, kind) for kind in BodyKind])
        self.erase(store, "sb_1", ["ex_1", "ex_3"])
        assert bodies.stock("sb_1") == Stock(1, 6, 1)
        assert bodies.put([sealed(key, "ex_4")])

    def test_an_append_that_is_refused_erases_nothing(self, store: EventStore, bodies: BodyStore) -> None:
        key, stream = bodies.add_key(new_key()), new_stream()
        bodies.put([sealed(key)])
        store.append([envelope(stream, 1)])
        with pytest.raises(StreamConflict):
            store.append([envelope(stream, 1)], rows=erasure("sb_1"))
        assert bodies.of("sb_1", "ex_1", "acme") == [sealed(key)]

    def test_what_comes_late_finds_no_place(self, store: EventStore, bodies: BodyStore) -> None:
        """Not even when the sandbox has a new key by then."""
        old = bodies.add_key(new_key())
        bodies.put([sealed(old)])
        self.erase(store, "sb_1")
        new = bodies.add_key(new_key())
        assert not bodies.put([sealed(old, kind=BodyKind.STDOUT)])
        assert bodies.put([sealed(new, "ex_2")])
        assert bodies.stock("sb_1").executions == 1

    def test_nothing_is_left_of_those_that_are_put_while_it_is_erased(
        self, store: EventStore, bodies: BodyStore, others: BodyStore
    ) -> None:
        """Put before the erasure they go with it, after it they are refused."""
        for number in range(20):
            key = bodies.add_key(new_key(f"sb_{number}"))
            ready = threading.Barrier(2)

            def put(key: BodyKey = key, ready: threading.Barrier = ready) -> None:
                ready.wait(self.patience)
                others.put([sealed(key, kind=kind) for kind in BodyKind])

            writer = threading.Thread(target=put)
            writer.start()
            ready.wait(self.patience)
            self.erase(store, key.sandbox_id)
            writer.join(self.patience)
            assert bodies.stock(key.sandbox_id) == Stock(0, 0, 0)

    def test_they_are_no_part_of_the_log(self, store: EventStore, bodies: BodyStore) -> None:
        before, raw = everything(store), store.raw(0)
        bodies.put([sealed(bodies.add_key(new_key()))])
        assert everything(store) == before
        assert store.raw(0) == raw
