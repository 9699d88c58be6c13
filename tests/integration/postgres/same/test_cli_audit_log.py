"""The audit log on the command line, over Postgres: what depends on the store, and who is an operator there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.console import Console
from tests.integration.cli.test_audit_log import (  # noqa: F401 - they run here, too
    ROOT,
    follower,
    log,
    story,
    test_following_sees_what_comes_and_ends_with_130,
    test_refused_commands,
)
from tests.support.postgres import TestDatabase


@pytest.fixture
def nexus(tmp_path: Path, prepared: TestDatabase) -> Console:
    console = Console(tmp_path)
    console.env["NEXUS_DATABASE_URL"] = prepared.application
    return console


def test_who_may_not_operate_is_refused_and_that_is_said(nexus: Console) -> None:
    for words in (("reconcile",), ("projections", "rebuild"), ("projections", "verify")):
        assert nexus(*words).status == 4
    told = log(nexus, "--refused", env=ROOT)
    assert [(entry["command"], entry["data"]["error"]) for entry in told] == [
        ("reconcile", "not_allowed"),
        ("rebuild", "not_allowed"),
        ("verify", "not_allowed"),
    ]
