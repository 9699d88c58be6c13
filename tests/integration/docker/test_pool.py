"""The warm pool: taken once, bounded, accounted for, and cleared whoever left it behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus.adapters.providers.docker import DockerProvider, pool
from nexus.domain.errors import ProviderInvalidRequest, ProviderNotRunning, ProviderUnsupported
from nexus.domain.provider import Limits, Observed, Template
from tests.integration.docker.conftest import Lab, until
from tests.support.dockerd import Engine
from tests.support.dockerd_fixtures import Doorway

LIMITS = Limits(memory_mb=128, processes=64, disk_mb=32)
TEMPLATE = Template(limits=LIMITS)


@pytest.fixture
def warm_lab(docker_engine: Engine, docker_image: str, client: Any, folder: Path) -> Iterator[Lab]:
    lab = Lab(DockerProvider(docker_engine.host, image=docker_image, folder=folder, pool_size=2), client)
    yield lab
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "GRACE", timedelta(0))
        plain = DockerProvider(docker_engine.host, image=docker_image, folder=folder)
        plain.refill(lab.installation)
        plain.close()
    lab.clean()
    lab.provider.close()


def members(lab: Lab) -> list[str]:
    return [seen.ref.data["container"] for seen in lab.provider.pooled(lab.installation)]


def sandbox(lab: Lab, **fields: Any) -> Observed:
    return lab.sandbox(limits=LIMITS, **fields)


def test_a_refill_brings_the_pool_to_its_size_and_no_further(warm_lab: Lab) -> None:
    assert warm_lab.provider.refill(warm_lab.installation, TEMPLATE).made == 2
    assert warm_lab.provider.refill(warm_lab.installation, TEMPLATE) == pool.Refilled(0, 0)
    assert len(members(warm_lab)) == 2
    assert list(warm_lab.provider.owned(warm_lab.installation)) == [], "members are no orphans"


def test_a_sandbox_from_the_pool_is_like_any_other(warm_lab: Lab) -> None:
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)
    spec = warm_lab.spec(limits=LIMITS, env={"TOKEN": "x"}, template=Template(limits=LIMITS, env={"FROM": "template"}))
    seen = warm_lab.provider.ensure(spec)
    assert seen.ref.data["container"] == ready[0], "the oldest member"
    assert (seen.sandbox_id, seen.generation, seen.condition) == (spec.sandbox_id, 1, "running")
    assert warm_lab.run(seen.ref, "echo $TOKEN $FROM").stdout == b"x template\n"
    assert members(warm_lab) == ready[1:]
    assert [each.ref for each in warm_lab.provider.find(spec.sandbox_id, warm_lab.installation)] == [seen.ref]
    assert [each.ref for each in warm_lab.provider.owned(warm_lab.installation)] == [seen.ref]
    assert warm_lab.provider.inspect(seen.ref).incarnation == seen.incarnation
    left = warm_lab.provider.time_left(seen.ref)
    assert left is not None
    assert 500 < left < 700, "its own deadline, not the pool's"
    assert warm_lab.provider.ensure(spec).ref == seen.ref, "ensured twice, it is one"
    paused = warm_lab.provider.pause(seen.ref, lambda _ref: None)
    assert warm_lab.provider.resume(spec, paused).ref == seen.ref
    assert warm_lab.provider.destroy(seen.ref)


def test_other_kinds_of_sandbox_are_not_taken_from_it(warm_lab: Lab) -> None:
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)
    more = warm_lab.sandbox(limits=replace(LIMITS, memory_mb=192))
    closed = sandbox(warm_lab, network="none")
    foreign = sandbox(warm_lab, installation=f"{warm_lab.installation}x")
    assert not {more.ref.data["container"], closed.ref.data["container"], foreign.ref.data["container"]} & set(ready)
    assert members(warm_lab) == ready


def test_many_at_once_never_get_the_same_one(warm_lab: Lab, docker_image: str, folder: Path) -> None:
    other = DockerProvider(warm_lab.provider.url, image=docker_image, folder=folder, pool_size=2)
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)
    specs = [warm_lab.spec(limits=LIMITS, env={"ME": str(n)}) for n in range(6)]
    with ThreadPoolExecutor(6) as threads:
        workers = [(warm_lab.provider, other)[n % 2] for n in range(6)]
        seen = list(threads.map(lambda n: workers[n].ensure(specs[n]), range(6)))
    containers = [each.ref.data["container"] for each in seen]
    assert len(set(containers)) == 6
    assert set(ready) <= set(containers)
    assert [warm_lab.run(each.ref, "echo $ME").stdout for each in seen] == [f"{n}\n".encode() for n in range(6)]
    other.close()


def test_two_that_ensure_one_sandbox_get_one(warm_lab: Lab, docker_image: str, folder: Path) -> None:
    other = DockerProvider(warm_lab.provider.url, image=docker_image, folder=folder, pool_size=2)
    for _ in range(3):
        warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
        spec = warm_lab.spec(limits=LIMITS)
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda worker, spec=spec: worker.ensure(spec), (warm_lab.provider, other))
        assert first.ref == second.ref
        assert len(warm_lab.provider.find(spec.sandbox_id, warm_lab.installation)) == 1
    other.close()


def test_without_a_pool_what_is_left_of_one_is_an_orphan(warm_lab: Lab, docker_image: str, folder: Path) -> None:
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    plain = DockerProvider(warm_lab.provider.url, image=docker_image, folder=folder)
    left = list(plain.owned(warm_lab.installation))
    assert [each.notes for each in left] == [("left of a warm pool",)] * 2
    assert len({each.sandbox_id for each in left}) == 2
    assert plain.destroy(left[0].ref)
    assert plain.refill(warm_lab.installation) == pool.Refilled(0, 1)
    assert members(warm_lab) == []
    plain.close()


def test_surplus_and_dead_members_are_removed(warm_lab: Lab, docker_image: str, folder: Path) -> None:
    large = DockerProvider(warm_lab.provider.url, image=docker_image, folder=folder, pool_size=4)
    large.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)
    warm_lab.engine.kill(ready[0])
    until(lambda: warm_lab.engine.inspect_container(ready[0])["State"]["Status"] == "exited", "it is dead")
    assert warm_lab.provider.refill(warm_lab.installation, TEMPLATE) == pool.Refilled(0, 2)
    assert members(warm_lab) == ready[1:3]
    large.close()


def test_a_dead_member_is_not_taken(warm_lab: Lab) -> None:
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)
    warm_lab.engine.remove_container(ready[0], force=True)
    warm_lab.engine.pause(ready[1])
    seen = sandbox(warm_lab)
    assert seen.ref.data["container"] not in ready
    assert warm_lab.run(seen.ref, "echo works").stdout == b"works\n"


def test_one_that_was_taken_and_never_renamed_is_cleared(warm_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took it died in between: it must neither be taken again nor stay for ever."""
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    ready = members(warm_lab)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("nexus.adapters.providers.docker.containers.Containers.rename", die)
        with pytest.raises(Killed):
            sandbox(warm_lab)
    assert members(warm_lab) == ready
    seen = sandbox(warm_lab)
    assert seen.ref.data["container"] == ready[1]
    assert warm_lab.provider.refill(warm_lab.installation, TEMPLATE).removed == 0, "it may still be renamed"
    monkeypatch.setattr(pool, "GRACE", timedelta(0))
    assert warm_lab.provider.refill(warm_lab.installation, TEMPLATE).removed == 1
    assert ready[0] not in members(warm_lab)


def test_a_member_that_nobody_takes_ends_by_itself(warm_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LIFETIME", timedelta(seconds=0.5))
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    until(lambda: {seen.condition for seen in warm_lab.provider.pooled(warm_lab.installation)} == {"gone"}, "it ended")


def test_what_a_restart_loses_is_known_for_members_too(warm_lab: Lab) -> None:
    warm_lab.provider.refill(warm_lab.installation, TEMPLATE)
    plain, secret = sandbox(warm_lab), sandbox(warm_lab, env={"TOKEN": "x"})
    for seen in (plain, secret):
        warm_lab.engine.restart(seen.ref.data["container"], timeout=0)
    assert warm_lab.run(plain.ref, "echo works").stdout == b"works\n"
    with pytest.raises(ProviderNotRunning):
        warm_lab.run(secret.ref, "echo $TOKEN")


def test_an_image_without_python_has_no_pool(docker_engine: Engine, bare_image: str, client: Any, folder: Path) -> None:
    lab = Lab(DockerProvider(docker_engine.host, image=bare_image, folder=folder, pool_size=2), client)
    with pytest.raises(ProviderUnsupported):
        lab.provider.refill(lab.installation, TEMPLATE)
    seen = sandbox(lab)
    assert lab.run(seen.ref, "echo works").stdout == b"works\n"
    lab.clean()
    lab.provider.close()


def test_a_pool_needs_its_image(warm_lab: Lab) -> None:
    with pytest.raises(ProviderInvalidRequest):
        warm_lab.provider.refill(warm_lab.installation, Template(image="no/such:image"))


def test_a_pool_on_a_remote_engine(remote_engine: Doorway, docker_image: str, client: Any, folder: Path) -> None:
    lab = Lab(DockerProvider(remote_engine.host, image=docker_image, folder=folder, pool_size=1), client)
    lab.provider.refill(lab.installation, TEMPLATE)
    (ready,) = members(lab)
    seen = sandbox(lab, env={"A": "b"})
    assert seen.ref.data["container"] == ready
    assert lab.run(seen.ref, "echo $A").stdout == b"b\n"
    lab.clean()
    lab.provider.close()
