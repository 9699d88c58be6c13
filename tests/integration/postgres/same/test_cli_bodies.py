"""Kept code and output on the command line, over Postgres: its key is shared by machines, so somebody made it."""

from __future__ import annotations

import base64
import os

import pytest

from tests.integration.cli.console import Console
from tests.integration.cli.test_bodies import *  # noqa: F403
from tests.integration.cli.test_bodies import capture_finding

del test_an_erased_row_is_no_longer_in_the_file  # noqa: F821 - pages of the server's, which it vacuums when it will
del test_doctor_says_what_is_kept_and_whether_it_can_be  # noqa: F821 - no key is made here: the next test


@pytest.fixture
def nexus(nexus: Console) -> Console:
    file = nexus.data / "keys" / "capture.key"
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    file.write_bytes(base64.b64encode(os.urandom(32)))
    return nexus


def test_without_a_key_doctor_and_the_first_capture_say_what_to_do(nexus: Console) -> None:
    assert capture_finding(nexus, NEXUS_CAPTURE="1")["ok"] is True
    (nexus.data / "keys" / "capture.key").unlink()
    found = capture_finding(nexus, NEXUS_CAPTURE="1")
    assert found["ok"] is False
    refused = nexus("sandbox", "create", "box", "--capture", "--json")
    assert (refused.status, refused.error["code"]) == (1, "configuration")
    for hint in (str(found["hint"]), refused.error["hint"]):
        assert "the same on every machine" in hint
        assert "openssl rand -base64 32" in hint
    assert nexus.head() == 0
