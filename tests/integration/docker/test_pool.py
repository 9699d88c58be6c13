"""The warm pool on an engine: what only containers can show. The pool itself: tests/unit/engine/test_pool.py."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.providers.docker import DockerProvider, agent
from nexus.domain.errors import ProviderGone, ProviderInvalidRequest, ProviderNotRunning, ProviderUnsupported
from nexus.domain.provider import Limits, Ref, SandboxSpec, Template
from nexus.domain.warm_pool import MemberSpec
from tests.integration.docker.conftest import Lab
from tests.support.dockerd import Engine
from tests.support.waiting import until

LIMITS = Limits(memory_mb=128, processes=64, disk_mb=32)
TEMPLATE = Template(limits=LIMITS)


@dataclass
class Stock:
    """Members that are removed whatever happens."""

    lab: Lab
    made: list[MemberSpec] = field(default_factory=list)

    def member(self, *, seconds: float = 600, template: Template = TEMPLATE) -> tuple[MemberSpec, Ref]:
        end = datetime.now(UTC) + timedelta(seconds=seconds)
        spec = MemberSpec(f"pm_{uuid.uuid4().hex}", self.lab.installation, template, end, template.limits)
        self.made.append(spec)
        return spec, self.lab.provider.prepare(spec)

    def wanted(self, **fields: Any) -> SandboxSpec:
        return self.lab.spec(limits=LIMITS, **fields)

    def members(self) -> list[tuple[str, str]]:
        return [(seen.member_id, seen.condition) for seen in self.lab.provider.pooled(self.lab.installation)]


@pytest.fixture
def stock(lab: Lab) -> Iterator[Stock]:
    stock = Stock(lab)
    yield stock
    for spec in stock.made:
        lab.provider.withdraw(spec.member_id, spec.installation)


def test_it_has_its_sandboxs_deadline_and_is_paused_and_resumed_like_any_other(stock: Stock) -> None:
    _, ref = stock.member(seconds=60)
    spec, provider = stock.wanted(), stock.lab.provider
    seen = provider.adopt(spec, ref)
    left = provider.time_left(seen.ref)
    assert left is not None
    assert 500 < left < 700, "its own deadline, not the pool's"
    assert provider.inspect(seen.ref).incarnation == seen.incarnation
    paused = provider.pause(seen.ref, lambda _ref: None)
    assert provider.resume(spec, paused).ref == seen.ref


def test_a_member_that_nobody_takes_ends_by_itself(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "EXPIRY_GRACE", 0.0)
    spec, ref = stock.member(seconds=1)
    until(lambda: stock.members() == [(spec.member_id, "gone")], "it ended")
    with pytest.raises(ProviderGone):
        stock.lab.provider.adopt(stock.wanted(), ref)


def test_one_that_is_paused_or_gone_is_refused_at_once(stock: Stock) -> None:
    (_, paused), (_, gone) = stock.member(), stock.member()
    stock.lab.engine.pause(paused.data["container"])
    stock.lab.engine.remove_container(gone.data["container"], force=True)
    assert {condition for _, condition in stock.members()} == {"paused"}
    with pytest.raises(ProviderNotRunning):
        stock.lab.provider.adopt(stock.wanted(), paused)
    with pytest.raises(ProviderGone):
        stock.lab.provider.adopt(stock.wanted(), gone)


def test_a_sandbox_that_somebody_renamed_is_still_none_of_the_pool_for_removal(stock: Stock) -> None:
    """By its labels it is a member still, and the engine above knows better: it withdraws only what is retired."""
    spec, ref = stock.member()
    seen = stock.lab.provider.adopt(stock.wanted(), ref)
    stock.lab.engine.rename(ref.data["container"], f"by-hand-{uuid.uuid4().hex}")
    assert stock.members() == [(spec.member_id, "running")]
    assert stock.lab.run(seen.ref, "echo works").stdout == b"works\n"


def test_a_name_that_is_taken_already_is_not_taken_over(stock: Stock) -> None:
    _, ref = stock.member()
    spec = stock.wanted()
    first = stock.lab.provider.ensure(spec)
    with pytest.raises(ProviderInvalidRequest):
        stock.lab.provider.adopt(spec, ref)
    assert [each.ref for each in stock.lab.provider.find(spec.sandbox_id, spec.installation)] == [first.ref]


def test_what_a_restart_loses_is_known_for_members_too(stock: Stock) -> None:
    (_, first), (_, second) = stock.member(), stock.member()
    plain = stock.lab.provider.adopt(stock.wanted(), first)
    secret = stock.lab.provider.adopt(stock.wanted(env={"TOKEN": "x"}), second)
    for seen in (plain, secret):
        stock.lab.engine.restart(seen.ref.data["container"], timeout=0)
    assert stock.lab.run(plain.ref, "echo works").stdout == b"works\n"
    with pytest.raises(ProviderNotRunning):
        stock.lab.run(secret.ref, "echo $TOKEN")


def test_another_engine_is_another_place(stock: Stock, tmp_path: Path) -> None:
    kind = stock.lab.provider.kind(TEMPLATE, LIMITS, "full")
    assert kind is not None
    assert kind.place == stock.lab.engine.info()["ID"]
    assert stock.lab.provider.kind(replace(TEMPLATE, name="x"), LIMITS, "full") == kind, "the same image"


def test_an_image_without_python_cannot_wait(docker_engine: Engine, bare_image: str, client: Any, folder: Path) -> None:
    lab = Lab(DockerProvider(docker_engine.host, image=bare_image, folder=folder), client)
    stock = Stock(lab)
    with pytest.raises(ProviderUnsupported):
        stock.member()
    assert lab.provider.kind(TEMPLATE, LIMITS, "full") is None, "it has learned that"
    assert stock.members() == []
    lab.clean()
    lab.provider.close()


def test_a_member_needs_its_image(stock: Stock) -> None:
    missing = Template(image="no/such:image", limits=LIMITS)
    for ask in (lambda: stock.lab.provider.kind(missing, LIMITS, "full"), lambda: stock.member(template=missing)):
        with pytest.raises(ProviderInvalidRequest) as caught:
            ask()
        assert "docker pull" in caught.value.hint
