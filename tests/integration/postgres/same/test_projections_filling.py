"""Filling a table from the whole log, over Postgres."""

from tests.unit.projections.test_filling import *  # noqa: F403

del test_any_log, test_a_row_goes_out_when_it_is_whole  # noqa: F821 - neither opens a store
