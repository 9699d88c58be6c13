"""Usage asked of a Postgres store."""

from tests.unit.engine.test_usage_report import (  # noqa: F401
    test_as_of_a_time_in_the_past_nothing_later_counts,
    test_as_of_a_time_what_had_not_ended_counts_up_to_then,
    test_as_of_another_sandboxs_event_one_that_runs_on_has_run_until_then,
    test_everyone_is_told_their_own_and_an_admin_the_tenants,
)
