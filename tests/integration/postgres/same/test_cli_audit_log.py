"""The audit log on the command line, over Postgres: what depends on the store, and who is an operator there."""

from __future__ import annotations

from tests.integration.cli.console import Console
from tests.integration.cli.test_audit_log import *  # noqa: F403
from tests.integration.cli.test_audit_log import ROOT, log

del test_what_cannot_be_asked  # noqa: F821 - wrong input of every kind: see test_bad_input_command_line


def test_who_may_not_operate_is_refused_and_that_is_said(nexus: Console) -> None:
    for words in (("reconcile",), ("projections", "rebuild"), ("projections", "verify")):
        assert nexus(*words).status == 4
    told = log(nexus, "--refused", env=ROOT)
    assert [(entry["command"], entry["data"]["error"]) for entry in told] == [
        ("reconcile", "not_allowed"),
        ("rebuild", "not_allowed"),
        ("verify", "not_allowed"),
    ]
