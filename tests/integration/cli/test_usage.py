"""`nexus usage`: what was used, by whom it may be seen, and the user's own prices."""

from __future__ import annotations

import pytest

from tests.integration.cli.console import Console

BOB = {"NEXUS_USER": "bob"}
ROOT = {"NEXUS_USER": "root", "NEXUS_ADMIN": "1"}


@pytest.fixture
def story(nexus: Console) -> str:
    """A sandbox of ann's that is stopped, with a run that failed; and a live one of bob's."""
    sandbox_id = nexus.create("box", "--label", "team=data")
    nexus.ok("sandbox", "run", "box", "-c", "1")
    assert nexus("sandbox", "run", "box", "-c", "exit 3").status == 3
    nexus.ok("sandbox", "stop", "box")
    nexus.ok("sandbox", "create", "bobs", env=BOB)
    return sandbox_id


def test_usage_is_what_the_log_says(nexus: Console, story: str) -> None:
    (group,) = nexus.ok("usage", "--by", "label:team", "--json").json["usage"]
    events = {event["type"]: event for event in nexus.ok("events", "list", "box", "--json").json["events"]}
    from datetime import datetime

    began, ended = (
        datetime.fromisoformat(events[f"sandbox.{topic}"]["occurred_at"]) for topic in ("started", "stopped")
    )
    assert group["key"] == "data"
    assert group["active_seconds"] == pytest.approx((ended - began).total_seconds())
    assert (group["runs"], group["succeeded"], group["failed"], group["running"]) == (2, 1, 1, 0)
    assert (group["cost"], group["unpriced"]) == (None, ["scripted"])
    total = nexus.ok("usage", "--until", events["sandbox.requested"]["occurred_at"], "--json").json
    assert (total["usage"], total["total"]["active_seconds"]) == ([], 0)


def test_everyone_sees_their_own(nexus: Console, story: str) -> None:
    for env, seen in (({}, ["ann"]), (BOB, ["bob"]), (ROOT, [])):
        assert [group["key"] for group in nexus.ok("usage", "--by", "user", "--json", env=env).json["usage"]] == seen
    everyone = nexus.ok("usage", "--by", "user", "--all-users", "--json", env=ROOT).json["usage"]
    assert [group["key"] for group in everyone] == ["ann", "bob"]
    assert nexus("usage", "--all-users").status == 4
    other = {**ROOT, "NEXUS_TENANT": "other"}
    assert nexus.ok("usage", "--all-users", "--json", env=other).json["usage"] == []


def test_prices_are_the_users_own(nexus: Console, story: str) -> None:
    file = nexus.folder / "config.toml"
    file.write_text("[prices]\nscripted = 3600\n")
    env = {"NEXUS_CONFIG": str(file)}
    (group,) = nexus.ok("usage", "--json", env=env).json["usage"]
    assert group["cost"] == pytest.approx(group["active_seconds"], abs=1e-6)
    assert group["unpriced"] == []
    assert nexus.ok("config", "show", "--json", env=env).json["prices"] == {"scripted": 3600.0}
    assert "Prices of an active hour: scripted 3600" in nexus.ok("config", "show", env=env).text
    header, row = nexus.ok("usage", env=env).text.splitlines()
    assert header.split()[0] == "PROVIDER"
    assert row.split()[0] == "scripted"
    file.write_text("[prices]\nscripted = 'much'\n")
    assert nexus("usage", env=env).status == 1


def test_several_things_and_paused_time(nexus: Console, story: str) -> None:
    file = nexus.folder / "config.toml"
    file.write_text("[prices]\nscripted = 1\n[paused_prices]\nscripted = 0.5\n")
    env = {**ROOT, "NEXUS_CONFIG": str(file)}
    told = nexus.ok("usage", "--by", "user", "--by", "provider", "--all-users", "--json", env=env).json
    assert told["by"] == ["user", "provider"]
    assert [group["key"] for group in told["usage"]] == [["ann", "scripted"], ["bob", "scripted"]]
    rows = nexus.ok("usage", "--by", "user", "--by", "provider", "--all-users", env=env).text.splitlines()
    assert [row.split()[:2] for row in rows[:3]] == [["USER", "PROVIDER"], ["ann", "scripted"], ["bob", "scripted"]]
    assert rows[3].split()[0] == "total"
    assert "Prices of a paused hour: scripted 0.5" in nexus.ok("config", "show", env=env).text
    assert nexus("usage", "--by", "user", "--by", "user").status == 2


@pytest.mark.parametrize("arguments", [["--by", "month"], ["--by", "label:"], ["--since", "today"]])
def test_what_cannot_be_asked(nexus: Console, arguments: list[str]) -> None:
    assert nexus("usage", *arguments).status == 2
