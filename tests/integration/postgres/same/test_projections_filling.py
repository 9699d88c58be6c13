"""Filling a table from the whole log, over Postgres."""

from tests.unit.projections.test_filling import *  # noqa: F403

# What opens no store:
del test_any_log, test_a_row_goes_out_when_it_is_whole  # noqa: F821
del test_rows_go_out_unfinished_when_too_many_are_kept  # noqa: F821
