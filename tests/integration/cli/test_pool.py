"""`nexus pool`, and the settings that say what is kept ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus.testing import FakeCloud, FakePoolProvider
from tests.integration.cli.console import Console

SIZE = {"NEXUS_POOL_SIZE": "2", "NEXUS_POOL_PROVIDER": "scripted"}


@pytest.fixture
def nexus(nexus: Console) -> Console:
    nexus.env |= nexus.operator
    return nexus


@pytest.fixture
def warm(nexus: Console) -> Console:
    nexus.provider = FakePoolProvider(FakeCloud(nexus.cloud), name="scripted")
    nexus.env |= SIZE
    return nexus


def test_filled_shown_taken_and_drained(warm: Console) -> None:
    assert "0 ready of 2 wanted" in warm.ok("pool", "status").text
    assert warm.ok("pool", "fill").text.count("is ready for template default") == 2
    assert warm.ok("pool", "fill").out == b""
    told = warm.ok("pool", "status", "--json").json
    assert told["templates"] == {"default": {"wanted": 2, "ready": 2}}
    members = [member["member_id"] for member in told["members"]]
    assert warm.ok("pool", "status", "--quiet").text.split() == members
    sandbox = warm.create("box")
    shown = warm.ok("pool", "status").text
    assert "default: 1 ready of 2 wanted" in shown
    (taken,) = warm.ok("events", "list", "--type", "pool.member_taken", "--json").json["events"]
    assert (taken["sandbox_id"], taken["actor"]) == (sandbox, "user:ann")
    assert warm.ok("worker", "--once", "--json").json["pool"]
    drained = warm.ok("pool", "drain", "--json").json
    assert (len(drained["pool"]), drained["problems"]) == (2, [])
    assert warm.ok("pool", "status", "--json").json["members"] == []
    assert warm.ok("sandbox", "run", "box", "-c", "out still here").status == 0


def test_without_a_size_there_is_nothing_to_fill(nexus: Console) -> None:
    assert nexus.ok("pool", "status").out == b""
    refused = nexus("pool", "fill")
    assert refused.status == 1
    assert "NEXUS_POOL_SIZE" in refused.err


def test_a_provider_that_keeps_none_is_named(nexus: Console) -> None:
    refused = nexus("pool", "fill", env=SIZE)
    assert (refused.status, refused.out) == (1, b"")
    assert "Provider scripted keeps no warm pool" in refused.err


def test_a_template_says_how_many(warm: Console, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[templates.data]\npool = 1\n[templates.none]\npool = 0\n")
    env = {"NEXUS_CONFIG": str(file)}
    warm.ok("pool", "fill", env=env)
    told = warm.ok("pool", "status", "--json", env=env).json["templates"]
    assert told == {"default": {"wanted": 2, "ready": 2}, "data": {"wanted": 1, "ready": 1}}
    assert warm.ok("template", "show", "data", "--json", env=env).json["pool"] == 1
    listed = [line.split() for line in warm.ok("template", "list", env=env).text.splitlines()]
    assert listed[0][-1] == "POOL"
    assert [line[-1] for line in listed[1:]] == ["1", "-", "0"]
    bounded = warm.ok("pool", "status", "--json", env={**env, "NEXUS_POOL_TOTAL": "2"}).json["templates"]
    assert {name: numbers["wanted"] for name, numbers in bounded.items()} == {"default": 2, "data": 0}


@pytest.mark.parametrize("size", ["-1", "true", '"3"', "1.5", "101"])
def test_a_template_with_a_wrong_size_is_refused(nexus: Console, tmp_path: Path, size: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[templates.data]\npool = {size}\n")
    refused = nexus("pool", "status", env={"NEXUS_CONFIG": str(file)})
    assert (refused.status, refused.out) == (1, b"")
    assert "pool is a whole number" in refused.err


def test_a_wrong_size_is_refused(nexus: Console) -> None:
    for name in ("NEXUS_POOL_SIZE", "NEXUS_POOL_TOTAL"):
        for value in ("-1", "x", "5000"):
            assert name in nexus("pool", "status", env={name: value}).err
