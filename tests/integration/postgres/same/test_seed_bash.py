"""The source document's bash blocks, over Postgres."""

from tests.seed.conftest import installation, nx, runs, sandbox_id  # noqa: F401 - fixtures
from tests.seed.test_bash import *  # noqa: F403
