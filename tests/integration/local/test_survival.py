"""A sandbox outlives its maker, is found by anyone, and is never half there: with real processes, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import nexus
from nexus.adapters.providers.local import LocalProvider, cgroups, network, processes
from nexus.adapters.providers.local.folder import Folder, Record
from nexus.domain.errors import ProviderGone
from nexus.domain.provider import Observed, Ref
from tests.integration.local.conftest import INSTALLATION, MakeSpec, Run
from tests.support.waiting import until

STEPS = (
    "folder.Folder.lock_for_sandbox",
    "launch._listen",
    "cgroups.make",
    "launch._spawn",
    "launch._read_info",
    "launch._write_maps",
    "launch._limit",
    "launch._hear",
    "launch._config",
    "bundle.birth",
    "processes.start_time",
    "folder.Folder.write_record",
    "launch.group_name",
    # Which whoever may not use /dev/net/tun does not get to.
    *(("network.command", "network.wait_until_ready") if network.program() else ()),
)
CREATE = """
import sys, os, signal, importlib, datetime
from pathlib import Path
from nexus.adapters.providers.local import LocalProvider
from nexus.domain.provider import SandboxSpec, Template
state, sandbox, step, moment = sys.argv[1:]
if step:
    module, _, rest = step.partition(".")
    package = "nexus.adapters.agent" if module == "bundle" else "nexus.adapters.providers.local"
    owner = importlib.import_module(f"{package}.{module}")
    *classes, name = rest.split(".")
    for each in classes:
        owner = getattr(owner, each)
    real = getattr(owner, name)
    def dying(*arguments, **named):
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dying)
expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
spec = SandboxSpec(sandbox, 1, "tests", "x", Template(), expires_at)
print(LocalProvider(Path(state)).ensure(spec).incarnation, flush=True)
"""


def create(state: Path, sandbox: str, step: str = "", moment: str = "") -> subprocess.Popen[bytes]:
    source = str(Path(nexus.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    arguments = [sys.executable, "-c", CREATE, str(state), sandbox, step, moment]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)


def belonging(folder: Path) -> list[int]:
    """Host processes that were started for this sandbox: their environment names its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.fsencode(f"LOG={folder}/") in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def groups_of(sandbox: str) -> list[Path]:
    return [entry for parent in cgroups.parents() for entry in parent.iterdir() if sandbox in entry.name]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_while_creating(
    step: str, moment: str, provider: LocalProvider, state: Path, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec()
    folder = Folder(state, INSTALLATION, spec.sandbox_id, 1)
    with create(state, spec.sandbox_id, step, moment) as creator:
        assert creator.wait(30) == -signal.SIGKILL, "the step was never reached"
    # What was not recorded ends itself; what was, too, unless it was given the word to go: that was the last step.
    until(lambda: not folder.alive(), "nothing lives that nobody knows")
    until(lambda: not belonging(folder.path), "its processes are gone")
    assert not provider.find(spec.sandbox_id, INSTALLATION)
    if folder.path.exists():
        assert [each.condition for each in provider.owned(INSTALLATION)] == ["gone"]
    observed = provider.ensure(spec)
    assert run(observed.ref, "print('well')").stdout == b"well\n"
    assert provider.destroy(observed.ref)
    assert not belonging(folder.path)
    assert not groups_of(spec.sandbox_id)


@pytest.mark.parametrize("step", ["launch._spawn", "launch._read_info", "launch._limit", "folder.Folder.write_record"])
def test_discarding_what_is_half_made(step: str, provider: LocalProvider, state: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    with create(state, spec.sandbox_id, step, "before") as creator:
        creator.wait(30)
    assert provider.discard(spec.sandbox_id, INSTALLATION) == 1
    assert provider.discard(spec.sandbox_id, INSTALLATION) == 0
    assert not list(provider.owned(INSTALLATION))
    assert not groups_of(spec.sandbox_id)


def test_it_outlives_its_maker_and_is_found(
    provider: LocalProvider, state: Path, make_spec: MakeSpec, run: Run
) -> None:
    spec = make_spec()
    with create(state, spec.sandbox_id) as creator:
        made = creator.communicate(timeout=30)[0].decode().strip()
        assert creator.returncode == 0
    (found,) = provider.find(spec.sandbox_id, INSTALLATION)
    assert (found.incarnation, found.condition) == (made, "running")
    assert run(found.ref, "open('kept', 'w').write('x')").exit_code == 0
    assert provider.ensure(spec).incarnation == made
    assert run(found.ref, "cat kept", "bash").stdout == b"x"


def test_many_processes_make_one(provider: LocalProvider, state: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    creators = [create(state, spec.sandbox_id) for _ in range(4)]
    made = {creator.communicate(timeout=60)[0] for creator in creators}
    assert [creator.returncode for creator in creators] == [0] * 4
    assert len(made) == 1
    assert len(provider.find(spec.sandbox_id, INSTALLATION)) == 1


def test_everything_is_gone_after_destroy(provider: LocalProvider, state: Path, make_spec: MakeSpec, run: Run) -> None:
    spec = make_spec()
    observed = provider.ensure(spec)
    folder = Folder(state, INSTALLATION, spec.sandbox_id, 1)
    assert belonging(folder.path)
    record = folder.record()
    assert record is not None
    mounts = Path("/proc/self/mountinfo").read_text()
    assert provider.destroy(observed.ref)
    assert not provider.destroy(observed.ref)
    assert processes.start_time(record.pid) != record.started or processes._state(record.pid) in ("Z", "")
    until(lambda: not belonging(folder.path), "slirp4netns and bubblewrap are gone")
    assert not groups_of(spec.sandbox_id)
    assert not state.exists() or not list(state.iterdir())
    assert Path("/proc/self/mountinfo").read_text() == mounts
    with pytest.raises(ProviderGone):
        run(observed.ref, "print(1)")


def test_killing_bubblewrap_from_outside_is_noticed(provider: LocalProvider, state: Path, make_spec: MakeSpec) -> None:
    spec = make_spec()
    observed = provider.ensure(spec)
    record = Folder(state, INSTALLATION, spec.sandbox_id, 1).record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: provider.inspect(observed.ref).condition == "gone", "it is seen to be gone")
    assert provider.find(spec.sandbox_id, INSTALLATION) == []
    again = provider.ensure(spec)
    assert again.incarnation != observed.incarnation


def test_a_pid_that_is_another_process_now_is_left_alone(provider: LocalProvider, make_spec: MakeSpec) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        started, namespace = processes.start_time(stranger.pid), processes.namespace(stranger.pid)
        assert namespace is not None
        ours = Record("sb_x", 1, INSTALLATION, "", processes.boot_id(), stranger.pid, started, namespace)
        assert processes.is_agent(ours)
        for other in ({"started": started - 1}, {"namespace": namespace + 1}, {"boot": "another"}):
            record = Record(**{**vars(ours), **other})
            assert not processes.is_agent(record)
            assert not processes.kill_agent(record)
            assert not processes.stop_all(record)
            processes.continue_all(record)
        assert stranger.poll() is None
        stranger.kill()


def test_other_installations_and_folders_are_untouched(
    provider: LocalProvider, state: Path, tmp_path: Path, make_spec: MakeSpec, run: Run
) -> None:
    spec, foreign = make_spec(), make_spec(installation="someone else's / ünïcode")
    first, second = provider.ensure(spec), provider.ensure(foreign)
    elsewhere = LocalProvider(tmp_path / "elsewhere")
    third = elsewhere.ensure(spec)
    try:
        assert {first.incarnation, second.incarnation, third.incarnation} == {
            each.incarnation
            for where, who in ((provider, INSTALLATION), (provider, foreign.installation), (elsewhere, INSTALLATION))
            for each in where.owned(who)
        }
        assert provider.discard(spec.sandbox_id, INSTALLATION) == 1
        for where, each in ((provider, second), (elsewhere, third)):
            assert where.inspect(each.ref).condition == "running"
    finally:
        elsewhere.discard(spec.sandbox_id, INSTALLATION)


def test_a_foreign_ref_of_a_gone_sandbox(provider: LocalProvider, make_spec: MakeSpec) -> None:
    ref = Ref("local", {"installation": INSTALLATION, "sandbox_id": "sb_none", "generation": "1"})
    assert provider.inspect(ref).condition == "gone"
    assert provider.destroy(ref) is False
    provider.cancel(ref, "ex_1")


def test_a_deep_state_folder(tmp_path: Path, make_spec: MakeSpec) -> None:
    """A unix socket's address holds 107 bytes; a folder's path may be longer."""
    deep = LocalProvider(tmp_path / ("d" * 100) / ("e" * 100))
    spec = make_spec()
    observed: Observed = deep.ensure(spec)
    try:
        deep.extend(observed.ref, spec.expires_at)
    finally:
        assert deep.destroy(observed.ref)
