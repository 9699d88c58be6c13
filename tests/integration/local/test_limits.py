"""Limits, pausing, and what is said of what cannot be had."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nexus.adapters.providers.local import LocalProvider, bwrap, cgroups, interpreters
from nexus.domain.errors import ConfigurationError, ProviderNotRunning, ProviderOutcomeUnknown
from nexus.domain.provider import Limits, Ref, RunRequest, Template
from tests.integration.local.conftest import MakeSpec, Run
from tests.support.waiting import until

EAT_TOGETHER = """
import os, time
# Two children hold most of it, each less than a process may have; the leader then takes too much.
for _ in range(2):
    if os.fork() == 0:
        kept = bytearray(b"x") * (60 << 20)
        time.sleep(60)
time.sleep(0.5)
kept = bytearray(b"x") * (100 << 20)
"""
MULTIPLY = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    pass
print(made)
"""


def test_memory_of_one_process(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    observed = provider.ensure(make_spec(limits=Limits(memory_mb=128, disk_mb=16)))
    code = "kept = []\ntry:\n    while True: kept.append(bytearray(1 << 22))\nexcept MemoryError: print(len(kept) < 32)"
    assert run(observed.ref, code).stdout == b"True\n"
    assert run(observed.ref, "x = bytearray(64 << 20); print('fits')").stdout == b"fits\n"


def test_memory_of_all_processes_together(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    """With a memory control group whoever is too much is killed, and the run that lost its own process says why."""
    observed = provider.ensure(make_spec(limits=Limits(memory_mb=128, disk_mb=16)))
    if any("memory" in note for note in observed.notes):
        pytest.fail("This test needs a memory control group: run it as root, or in a scope with delegated groups")
    result = run(observed.ref, EAT_TOGETHER)
    assert result.oom_killed, result
    assert (result.signal, result.exit_code) == (9, 137)
    assert run(observed.ref, "print('well')").stdout == b"well\n"


def test_processes(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    observed = provider.ensure(make_spec(limits=Limits(processes=20)))
    made = int(run(observed.ref, MULTIPLY).stdout)
    assert 10 <= made <= 60, made


def test_disk_is_one_limit_for_all_that_can_be_written(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    observed = provider.ensure(make_spec(limits=Limits(memory_mb=256, disk_mb=32)))
    fill = "for d in ~ /tmp /dev/shm; do head -c 12M /dev/zero > $d/f || echo full $d; done"
    lines = run(observed.ref, f"{fill}; df -k --output=size ~ | tail -1", "bash").stdout.decode().split("\n")
    assert lines[0] == "full /dev/shm"
    assert int(lines[1]) == 32 * 1024
    assert run(observed.ref, "touch ~/x /tmp/x; rm ~/f /tmp/f; echo well", "bash").stdout == b"well\n"


def test_cpu_time(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    if "cpus" not in provider.capabilities.limits:
        pytest.fail("This test needs a cpu control group: run it as root, or in a scope with delegated groups")
    observed = provider.ensure(make_spec(limits=Limits(cpus=0.25)))
    code = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    assert float(run(observed.ref, code).stdout) < 0.6


def test_what_cannot_be_enforced_is_said(
    provider: LocalProvider, make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "make", lambda name, limits: cgroups.Groups(()))
    observed = provider.ensure(make_spec(limits=Limits(cpus=1)))
    told = " ".join(observed.notes)
    assert "memory is limited for each process" in told
    assert "CPU time is not limited" in told


def run_to_its_loss(run: Run, ref: Ref, code: str) -> None:
    with suppress(ProviderOutcomeUnknown):
        run(ref, code, timeout=60)


@pytest.mark.parametrize("freezer", [True, False], ids=["freezer", "signals"])
def test_paused_means_that_nothing_runs(
    freezer: bool, provider: LocalProvider, make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not freezer:
        monkeypatch.setattr(cgroups, "make", lambda name, limits: cgroups.Groups(()))
    spec = make_spec()
    ref = provider.ensure(spec).ref
    code = (
        "import os, time\nfor _ in range(3): os.fork()\nwhile True:\n    open('beat', 'a').write('x'); time.sleep(0.01)"
    )
    running = threading.Thread(target=run_to_its_loss, args=(run, ref, code))
    running.start()
    try:
        until(lambda: run(ref, "cat beat", "bash").stdout.count(b"x") >= 8)
        saved: list[object] = []
        assert provider.pause(ref, saved.append) == ref
        assert saved == [ref]
        assert provider.inspect(ref).condition == "paused"
        assert provider.pause(ref, saved.append) == ref
        with pytest.raises(ProviderNotRunning):
            run(ref, "print(1)")
        used = cpu_ticks(provider, ref.data["sandbox_id"])
        time.sleep(0.3)
        assert cpu_ticks(provider, ref.data["sandbox_id"]) == used
        assert provider.resume(spec, ref).condition == "running"
        beats = run(ref, "cat beat", "bash").stdout.count(b"x")
        until(lambda: run(ref, "cat beat", "bash").stdout.count(b"x") > beats)
    finally:
        provider.destroy(ref)
        running.join(20)


def test_a_paused_one_can_be_destroyed_and_cancelled_in(provider: LocalProvider, make_spec: MakeSpec) -> None:
    ref = provider.ensure(make_spec()).ref
    results = []
    request = RunRequest("ex_long", 60, "bash", b"sleep 60")
    running = threading.Thread(target=lambda: results.append(provider.run(ref, request)))
    running.start()
    time.sleep(0.2)
    provider.pause(ref, lambda _: None)
    provider.cancel(ref, "ex_long")
    running.join(10)
    assert results[0].signal == 9
    assert provider.inspect(ref).condition == "paused"
    begun = time.monotonic()
    assert provider.destroy(ref)
    assert time.monotonic() - begun < 2


def cpu_ticks(provider: LocalProvider, sandbox_id: str) -> int:
    """What the sandbox's processes have used of the CPU so far."""
    from nexus.adapters.providers.local import processes
    from nexus.adapters.providers.local.folder import folders

    (folder,) = [x for x in folders(provider._state, "tests") if x.sandbox_id == sandbox_id]
    record = folder.record()
    assert record is not None
    total = 0
    for pid, _ in processes._family(record.pid):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def test_without_bubblewrap(provider: LocalProvider, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap, "program", lambda: None)
    with pytest.raises(ConfigurationError) as raised:
        provider.ensure(make_spec())
    assert "apt-get install bubblewrap" in raised.value.hint
    finding = provider.diagnose()[0]
    assert (finding.check, finding.ok, finding.hint) == ("bubblewrap", False, "apt-get install bubblewrap")


def test_without_node(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "javascript" in provider.capabilities.languages, "node is missing: apt-get install nodejs"
    monkeypatch.setattr(interpreters, "node", lambda: None)
    assert provider.capabilities.languages == ("python", "bash")
    finding = next(finding for finding in provider.diagnose() if finding.check == "javascript")
    assert (finding.ok, finding.required, finding.hint) == (False, False, "apt-get install nodejs")


def test_everything_is_well_here(provider: LocalProvider) -> None:
    assert [finding for finding in provider.diagnose() if finding.required and not finding.ok] == []


@pytest.mark.parametrize("path", ["/nowhere/python", "/etc/passwd", "/usr/bin", "script"])
def test_what_is_no_interpreter(path: str, provider: LocalProvider, make_spec: MakeSpec, tmp_path: Path) -> None:
    if path == "script":
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\nexec python3")
        script.chmod(0o755)
        path = str(script)
    with pytest.raises(ConfigurationError):
        provider.ensure(make_spec(template=Template(python=path)))


def test_an_interpreter_may_not_open_the_whole_machine() -> None:
    for prefix in ("/home", "/opt", "/root"):
        with pytest.raises(ConfigurationError):
            interpreters.trees({Path(prefix)})
    assert interpreters.trees({Path("/usr"), Path("/usr/local"), Path("/opt/python"), Path("/opt/python/3")}) == (
        "/opt/python",
    )


def test_the_system_interpreter(provider: LocalProvider, make_spec: MakeSpec, run: Run) -> None:
    """Another interpreter than the manager's: the agent is compiled there."""
    observed = provider.ensure(make_spec(template=Template(python="/usr/bin/python3")))
    assert run(observed.ref, "import sys; print(sys.executable)").stdout == b"/usr/bin/python3\n"
