"""The document's reference of the Python API against the facade's own signatures."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from nexus import NexusFS
from tests.seed.blocks import blocks

LINES = [line for line in blocks("python")["Python API"].text.splitlines() if line and not line.startswith("#")]
SANDBOX_KEYS = {
    "sandbox_id",
    "name",
    "status",
    "provider",
    "template_id",
    "user_id",
    "agent_id",
    "tenant_id",
    "created_at",
    "last_active_at",
    "paused_at",
    "stopped_at",
    "ttl_minutes",
    "expires_at",
    "uptime_seconds",
    "stop_reason",
}
RUN_KEYS = {"stdout", "stderr", "exit_code", "execution_time", "execution_id", "timed_out", "truncated"}


def test_the_reference_is_read_whole() -> None:
    assert [line.partition("(")[0] for line in LINES] == [
        "sandbox_create",
        "sandbox_run",
        "sandbox_pause",
        "sandbox_resume",
        "sandbox_stop",
        "sandbox_list",
        "sandbox_status",
    ]


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line).partition("(")[0])
def test_a_method_can_be_called_as_the_reference_says(line: str) -> None:
    (documented,) = ast.parse(f"def {line}: ...").body
    assert isinstance(documented, ast.FunctionDef)
    own = inspect.signature(getattr(NexusFS, documented.name))
    positional = [p for p in own.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    arguments = documented.args.args
    assert [p.name for p in positional] == [a.arg for a in arguments], "names and order are part of the interface"
    defaults = dict(zip([a.arg for a in arguments[::-1]], documented.args.defaults[::-1], strict=False))
    for parameter in positional:
        if parameter.name not in defaults:
            assert parameter.default is parameter.empty, f"{parameter.name} is required"
        elif parameter.name != "ttl_minutes":
            assert parameter.default == ast.literal_eval(defaults[parameter.name])
    others = set(own.parameters.values()) - set(positional) - {own.parameters["self"]}
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others), "what came later is optional"
    assert re.match(r"dict\b", str(own.return_annotation))


def test_the_default_time_to_live(nx: NexusFS) -> None:
    """It is a setting, whose default is the reference's 10 minutes."""
    assert nx.sandbox_create("ten")["ttl_minutes"] == 10


def test_results_are_plain_dicts_with_the_same_keys_everywhere(nx: NexusFS) -> None:
    created = nx.sandbox_create("keys")
    sandbox_id = created["sandbox_id"]
    run = nx.sandbox_run(sandbox_id, "python", "pass")
    assert type(run) is dict
    assert set(run) == RUN_KEYS
    answers = [
        created,
        nx.sandbox_status(sandbox_id),
        nx.sandbox_pause(sandbox_id),
        nx.sandbox_resume(sandbox_id),
        *nx.sandbox_list()["sandboxes"],
        nx.sandbox_stop(sandbox_id),
    ]
    for answer in answers:
        assert type(answer) is dict
        assert set(answer) == SANDBOX_KEYS
        assert answer["sandbox_id"] == sandbox_id
    assert [answer["status"] for answer in answers] == ["active", "active", "paused", "active", "active", "stopped"]
