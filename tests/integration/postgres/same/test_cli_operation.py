"""The command line's tests about operating an installation, over Postgres."""

from tests.integration.cli.test_operation import *  # noqa: F403

del test_on_the_embedded_store_its_user_is_its_operator  # noqa: F821 - here nobody is one by itself: test_cli_audit_log
del test_doctor_looks_into_the_store  # noqa: F821 - it damages the embedded store's file; test_doctor looks into this one
# None of these opens the store of its console.
del test_a_workers_interval_is_checked, test_doctor_says_what_is_missing, test_doctor_names_an_unknown_provider  # noqa: F821
del test_doctor_works_with_settings_that_do_not, test_providers, test_config_says_where_each_value_is_from_and_no_secret  # noqa: F821
del test_a_password_in_the_store_address_reaches_no_error, test_a_wrong_setting_is_named, test_completion_scripts  # noqa: F821
del test_version_and_help  # noqa: F821
