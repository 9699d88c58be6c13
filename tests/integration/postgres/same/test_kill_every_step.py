"""kill -9 at every step, over Postgres. With workers alive: see test_postgres_kills."""

from tests.faults.test_kill_every_step import *  # noqa: F403
