"""The source document's python blocks, over Postgres."""

from tests.seed.conftest import installation, nx, runs, sandbox_id  # noqa: F401 - fixtures
from tests.seed.test_python import *  # noqa: F403
