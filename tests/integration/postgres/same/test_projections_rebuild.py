"""The read models' tests, over Postgres."""

from tests.unit.projections.test_rebuild import *  # noqa: F403

# Writers of the embedded store wait for its rebuilds; here nobody waits: see `test_rebuilding` for what that asks.
del test_rebuilds_under_load_lose_nothing  # noqa: F821
