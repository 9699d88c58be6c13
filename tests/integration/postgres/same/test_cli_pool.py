"""The command line's tests about the warm pool, over Postgres, where it is for operators."""

from tests.integration.cli.console import Console
from tests.integration.cli.test_pool import *  # noqa: F403


def test_it_is_for_operators(warm: Console) -> None:
    for command in ("status", "fill", "drain"):
        assert warm("pool", command, env={"NEXUS_ADMIN": None}).status == 4
