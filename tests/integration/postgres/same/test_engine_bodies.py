"""Kept code and output, over Postgres."""

from tests.unit.engine.test_bodies import *  # noqa: F403

del test_what_is_erased_is_gone_from_the_files_while_they_are_in_use  # noqa: F821 - the server's files, vacuumed in time
