"""The command line's tests about templates, over Postgres."""

from tests.integration.cli.test_template import *  # noqa: F403

del test_a_local_environment_is_built_and_found  # noqa: F821 - building one opens no store
del test_wrong_words  # noqa: F821 - they are refused before any store is opened
