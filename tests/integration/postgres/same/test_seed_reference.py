"""The source document's reference blocks, over Postgres."""

from tests.seed.conftest import installation, nx, runs, sandbox_id  # noqa: F401 - fixtures
from tests.seed.test_reference import *  # noqa: F403
