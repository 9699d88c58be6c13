"""JSON is an interface: its keys, and the words that scripts look for, change only on purpose."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from tests.integration.cli.console import Console

SANDBOX = (
    "sandbox_id name status provider template_id user_id agent_id tenant_id created_at last_active_at paused_at "
    "stopped_at ttl_minutes expires_at uptime_seconds stop_reason"
)
STATUS = (
    f"{SANDBOX} version started_at remaining_seconds max_age_seconds network limits labels env_names capture notes "
    "pending last_error runs open_executions generation incarnation ref"
)
RUN = (
    "stdout stderr exit_code execution_time execution_id timed_out truncated "
    "sandbox_id language signal oom_killed session_started stdout_bytes stderr_bytes valid_utf8 notes"
)
EXECUTION = (
    "execution_id sandbox_id actor agent_id status language code_sha256 code_bytes timeout started_at finished_at "
    "duration exit_code signal oom_killed stdout_bytes stderr_bytes truncated reason"
)
EVENT = (
    "position event_id type schema_version sandbox_id stream stream_version occurred_at recorded_at actor agent_id "
    "tenant_id origin command correlation_id causation_id data"
)
ENTRY = (
    "position event_id occurred_at recorded_at actor tenant_id agent_id origin command type schema_version sandbox_id "
    "correlation_id causation_id sentence data"
)
USAGE = "sandboxes active_seconds paused_seconds runs succeeded failed timed_out lost running providers cost unpriced"
REPORT = "expired taken_over runs_lost lost drifted orphans pool bodies_erased problems"

COMMANDS: dict[str, str] = {
    "sandbox create other": SANDBOX,
    "sandbox pause box": SANDBOX,
    "sandbox resume box": SANDBOX,
    "sandbox extend box --ttl 20": SANDBOX,
    "sandbox status box": STATUS,
    "sandbox status box --verify": STATUS,
    "sandbox run box -c 1": RUN,
    "sandbox exec box -- true": RUN,
    "sandbox list": "sandboxes next_cursor",
    "sandbox logs box": "sandbox_id executions",
    "sandbox timeline": "begin end sandboxes",
    "sandbox timeline box": "begin end sandboxes",
    "sandbox cp - box:/x": "sandbox_id path local direction bytes",
    "sandbox stop box": SANDBOX,
    "sandbox stop box box": "sandboxes",
    "sandbox stop --all": "sandboxes",
    "events list": "events next_after",
    "events show 1": EVENT,
    "events tail -n 1": EVENT,
    "reconcile": REPORT,
    "worker --once": REPORT,
    "migrate": "version applied",
    "audit why box": "sandbox_id summary sentences chain positions",
    "audit log": "entries next_after",
    "audit erase box": "sandbox_id executions position",
    "audit seal": "sealed upto",
    "audit verify": (
        "intact installation events seals sealed_upto unsealed checkpoints findings more_findings renumbered checked "
        "cannot_be_detected"
    ),
    "projections status": "projections",
    "projections rebuild due": "rebuilt",
    "projections verify": "verified",
    "providers": "providers",
    "pool status": "provider templates members",
    "pool drain": "pool problems",
    "template list": "templates",
    "template show default": "name image python template_id gpu pool limits env_names",
    "config show": "file settings templates prices paused_prices",
    "usage": "by since until usage total unreadable",
}
INSIDE: dict[str, str] = {
    "sandbox list": SANDBOX,
    "sandbox logs box": EXECUTION,
    "sandbox timeline": "sandbox_id name user_id provider stop_reason stretches runs",
    "events list": EVENT,
    "audit log": ENTRY,
    "usage": f"key {USAGE}",
    "projections status": "name version kind position head lag quarantined",
    "projections rebuild due": "name version position events quarantined",
    "projections verify": "name equal position rows quarantined difference",
    "providers": "name configured reason hint capabilities",
    "template list": "name image python template_id gpu pool limits env_names",
}

ELSEWHERE = {
    "doctor",
    "completion",
    "replay",
    "audit body",
    "audit checkpoint",
    "audit key",
    "audit dump",
    "audit export",
    "template build",
    "projections quarantine",
    "projections retry",
    "projections skip",
    "pool fill",
}
"""What they print has a test of its own."""

OWNERS = {"migrate", "projections", "reconcile", "pool"}
"""Where a database is shared, these are for its operators."""


def asked(nexus: Console, command: str) -> Any:
    words = command.split()
    words.insert(words.index("--") if "--" in words else len(words), "--json")
    return nexus.ok(*words, env=nexus.owner if words[0] in OWNERS else None).json


@pytest.mark.parametrize("command", COMMANDS)
def test_keys(nexus: Console, command: str) -> None:
    nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "1")
    told = asked(nexus, command.replace("show 1", f"show {nexus.events()[0].position}"))
    assert list(told) == COMMANDS[command].split()
    if command in INSIDE:
        entries = next(value for value in told.values() if isinstance(value, list))
        assert entries
        assert {tuple(entry) for entry in entries} == {tuple(INSIDE[command].split())}


def test_every_command_has_json(nexus: Console) -> None:
    from nexus.cli.lazy import LazyGroup
    from nexus.cli.program import nexus_command

    def leaves(group: LazyGroup, path: tuple[str, ...] = ()) -> list[str]:
        found: list[str] = []
        for name in group.lazy:
            command = group.load(name)
            assert {"--json", "--quiet"} <= {option for param in command.params for option in param.opts}, name
            found += leaves(command, (*path, name)) if isinstance(command, LazyGroup) else [" ".join((*path, name))]
        return found

    frozen = {command.partition(" -")[0] for command in COMMANDS}
    for leaf in leaves(nexus_command):
        covered = any(one == leaf or one.startswith(leaf + " ") for one in frozen)
        assert covered or leaf in ELSEWHERE, f"no frozen shape for `nexus {leaf}`"


def test_scripts_of_the_documentation(nexus: Console) -> None:
    """The JSON block of the source document, word for word, in bash with jq."""
    bash, jq = shutil.which("bash"), shutil.which("jq")
    assert bash is not None, "apt-get install bash"
    assert jq is not None, "apt-get install jq"
    (nexus.folder / "bin").mkdir()
    program = nexus.folder / "bin" / "nexus"
    import sys

    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nexus.cli "$@"\n')
    program.chmod(0o755)
    script = r"""
set -euo pipefail
# Create and capture sandbox_id
SANDBOX_ID=$(nexus sandbox create test --json | jq -r '.sandbox_id')

# Run code and parse results
nexus sandbox run $SANDBOX_ID -c "print(42)" --json | jq -r '.stdout'

# Check status
nexus sandbox status $SANDBOX_ID --json | jq '.status'
"""
    env = nexus.environment({"PATH": f"{program.parent}:{nexus.env['PATH']}"})
    done = subprocess.run([bash, "-c", script], env=env, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b'print(42)\n"active"\n', b"")
