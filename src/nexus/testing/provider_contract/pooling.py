"""The warm pool's promises, for a provider that implements `nexus.domain.provider.WarmPool` beside the port."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from nexus.domain.errors import ProviderGone, ProviderNotRunning
from nexus.domain.provider import Provider, Template
from nexus.domain.warm_pool import MemberSpec, WarmPool
from nexus.testing.provider_contract.base import ContractBase, MakeSpec


class MakeMember(Protocol):
    """Makes the spec of a member with an id of its own, and cleans up after it."""

    def __call__(self, installation: str | None = ...) -> MemberSpec: ...


class WarmPoolContract(ContractBase):
    """A subclass gives what `ProviderContract` asks for; `open_provider` opens a provider that keeps a warm pool."""

    @pytest.fixture
    def keeper(self, provider: Provider) -> WarmPool:
        assert isinstance(provider, WarmPool)
        return provider

    @pytest.fixture
    def make_member(self, keeper: WarmPool, installation: str, template: Template) -> Iterator[MakeMember]:
        made: list[MemberSpec] = []

        def make(installation: str | None = installation) -> MemberSpec:
            assert installation is not None
            end = datetime.now(UTC) + timedelta(minutes=10)
            made.append(MemberSpec(f"pm_{uuid.uuid4().hex}", installation, template, end, template.limits))
            return made[-1]

        yield make
        for spec in made:
            keeper.withdraw(spec.member_id, spec.installation)

    def test_a_member_waits_and_is_no_sandbox(
        self, provider: Provider, keeper: WarmPool, make_member: MakeMember
    ) -> None:
        spec = make_member()
        ref = keeper.prepare(spec)
        assert keeper.prepare(spec) == ref, "prepared twice, it is one"
        (seen,) = keeper.pooled(spec.installation)
        assert (seen.member_id, seen.condition) == (spec.member_id, "running")
        assert list(provider.owned(spec.installation)) == []
        assert keeper.pooled(f"{spec.installation}x") == []

    def test_a_member_becomes_a_sandbox_like_any_other(
        self, provider: Provider, keeper: WarmPool, make_member: MakeMember, make_spec: MakeSpec
    ) -> None:
        member, spec = make_member(), make_spec(env={"TOKEN": "x"})
        ref = keeper.prepare(member)
        seen = keeper.adopt(spec, ref)
        assert (seen.sandbox_id, seen.generation, seen.condition) == (spec.sandbox_id, 1, "running")
        assert self.execute(provider, seen.ref, "echo $TOKEN").stdout == b"x\n"
        assert keeper.pooled(spec.installation) == []
        assert [each.ref for each in provider.owned(spec.installation)] == [seen.ref]
        assert [each.ref for each in provider.find(spec.sandbox_id, spec.installation)] == [seen.ref]
        assert keeper.adopt(spec, ref).ref == seen.ref, "adopted twice, it is one"
        assert provider.ensure(spec).ref == seen.ref
        assert not keeper.withdraw(member.member_id, member.installation), "a sandbox is not withdrawn"
        assert provider.inspect(seen.ref).condition == "running"
        assert provider.destroy(seen.ref)

    def test_one_that_is_gone_cannot_be_adopted(
        self, keeper: WarmPool, make_member: MakeMember, make_spec: MakeSpec
    ) -> None:
        member = make_member()
        ref = keeper.prepare(member)
        assert keeper.withdraw(member.member_id, member.installation)
        assert not keeper.withdraw(member.member_id, member.installation)
        assert keeper.pooled(member.installation) == []
        with pytest.raises((ProviderGone, ProviderNotRunning)):
            keeper.adopt(make_spec(), ref)

    def test_another_installation_withdraws_nothing(self, keeper: WarmPool, make_member: MakeMember) -> None:
        member = make_member()
        keeper.prepare(member)
        assert not keeper.withdraw(member.member_id, f"{member.installation}x")
        assert [seen.member_id for seen in keeper.pooled(member.installation)] == [member.member_id]

    def test_two_workers_that_prepare_one_member_make_one(
        self, keeper: WarmPool, other: Provider, make_member: MakeMember
    ) -> None:
        assert isinstance(other, WarmPool)
        spec = make_member()
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda worker: worker.prepare(spec), (keeper, other))
        assert first == second
        assert len(keeper.pooled(spec.installation)) == 1

    def test_kinds_tell_apart_what_differs_before_the_set_up(self, keeper: WarmPool, template: Template) -> None:
        limits = template.limits
        kind = keeper.kind(template, limits, "full")
        assert kind is not None
        assert kind == keeper.kind(replace(template, env={"A": "b"}), limits, "full"), "variables are given later"
        others = [keeper.kind(template, replace(limits, memory_mb=333), "full"), keeper.kind(template, limits, "none")]
        assert kind not in others
