"""Which store a test gets: the embedded one, unless `tests/integration/postgres/same` says otherwise."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.postgres import TestDatabase

if TYPE_CHECKING:
    from tests.support.sharing import Sharing

# A shell has its background commands ignore Ctrl-C, and `nohup` has its command ignore that the terminal is gone. So
# would every process that a test starts and signals.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def database() -> TestDatabase | None:
    """A migrated database on Postgres; None is the embedded store."""
    return None


@pytest.fixture(scope="module")
def shared_database() -> TestDatabase | None:
    """The same, for modules whose tests leave it as it is."""
    return None


# --- the run itself --------------------------------------------------------------------------------------------------
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing | None:
    """For runs in several processes, as `scripts/test` makes them."""
    from tests.support.sharing import Sharing

    return Sharing(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        from tests.support.sharing import make_way

        make_way(config)


def pytest_collection_finish() -> None:
    """Eight thousand tests and what they import stay to the end: nothing has to look through them again and again."""
    gc.collect()
    gc.freeze()
