"""Kept code and output, over Postgres: those of the engine's tests in which the database has a part."""

from tests.unit.engine.test_bodies import (  # noqa: F401
    captured,
    test_a_flood_is_kept_as_far_as_the_run_keeps_it,
    test_a_run_in_progress_is_erased_with_the_rest,
    test_anybody_else_is_told_what_an_unknown_one_answers,
    test_erasing_again_changes_nothing,
    test_many_go_in_portions,
    test_of_many_who_erase_at_once_one_says_so,
    test_the_chain_is_as_intact_as_before,
    test_the_log_says_who_erased_what_and_when,
    test_what_ran_is_read_back_and_proven_by_the_log,
    test_what_runs_later_is_captured_under_a_new_key,
    test_what_was_kept_long_enough_goes_with_the_next_reconcile,
)
