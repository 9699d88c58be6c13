"""Which store a test gets: the embedded one, unless `tests/integration/postgres/same` says otherwise."""

from __future__ import annotations

import signal

import pytest

from tests.support.postgres import TestDatabase

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background commands ignore Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def database() -> TestDatabase | None:
    """A migrated database on Postgres; None is the embedded store."""
    return None


@pytest.fixture(scope="module")
def shared_database() -> TestDatabase | None:
    """The same, for modules whose tests leave it as it is."""
    return None
