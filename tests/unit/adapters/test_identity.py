"""Who a process is, and when another one may say that it is dead: only with proof."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nexus.adapters import identity
from nexus.adapters.identity import ProcessLiveness, ProcessOrigin

HOLDER = """
import sys
from nexus.adapters.identity import ProcessLiveness, ProcessOrigin
print(ProcessLiveness().me, flush=True)
sys.stdin.read()
"""
MACHINE = "0123456789abcdef0123456789abcdef"


def liveness(monkeypatch: pytest.MonkeyPatch, *, machine: str, boot: str = "boot-1") -> ProcessLiveness:
    """That of this process, on a machine with such an id, after such a boot."""
    read = identity._read
    told = {"/etc/machine-id": machine, "/proc/sys/kernel/random/boot_id": boot}
    monkeypatch.setattr(identity, "_read", lambda path: told.get(path, read(path)))
    return ProcessLiveness()


@contextmanager
def process() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Another process, and the holder that it calls itself."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        try:
            yield other.stdout.readline().decode().strip(), other
        finally:
            other.kill()


def test_a_process_lives_until_it_is_gone() -> None:
    me = ProcessLiveness()
    with process() as (holder, other):
        assert not me.is_dead(holder)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert me.is_dead(holder), "waiting to be reaped is dead"
    assert me.is_dead(holder)


def test_a_forked_child_is_somebody_else() -> None:
    me = ProcessLiveness()
    parent = me.me
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, me.me.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() != parent
    assert me.me == parent


@pytest.mark.parametrize("machine", [MACHINE, ""], ids=["machine id", "no machine id"])
def test_what_is_proven_on_this_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    """Containers and minimal systems have no machine id: the boot id alone says that it is the same kernel."""
    me = liveness(monkeypatch, machine=machine)
    named, boot, namespace, pid, start = me.me.split(":")
    assert not me.is_dead(me.me)
    assert me.is_dead(":".join((named, boot, namespace, pid, str(int(start) - 1)))), "its number was given to another"
    assert not me.is_dead(":".join((named, boot, "1", pid, "1"))), "a number of another namespace says nothing"


def test_a_boot_ends_whatever_ran_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = liveness(monkeypatch, machine=MACHINE, boot="boot-1").me
    assert liveness(monkeypatch, machine=MACHINE, boot="boot-2").is_dead(before)


@pytest.mark.parametrize(("theirs", "ours"), [(MACHINE, "f" * 32), (MACHINE, ""), ("", MACHINE), ("", "")])
def test_nothing_is_known_of_another_machine(monkeypatch: pytest.MonkeyPatch, theirs: str, ours: str) -> None:
    holder = liveness(monkeypatch, machine=theirs, boot="boot-1").me
    assert not liveness(monkeypatch, machine=ours, boot="boot-2").is_dead(holder)


@pytest.mark.parametrize("holder", ["", "somebody", "a:b:c:d:e", "a:b:c:1", "unknown::::", ":::1:1"])
def test_what_is_no_holder_is_never_dead(monkeypatch: pytest.MonkeyPatch, holder: str) -> None:
    for boot in ("boot-1", ""):
        assert not liveness(monkeypatch, machine="", boot=boot).is_dead(holder)


def test_an_origin_is_this_machine_and_process_also_after_a_fork() -> None:
    origin = ProcessOrigin("worker")
    assert origin() == f"worker@{os.uname().nodename}:{os.getpid()}"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, origin().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == f"worker@{os.uname().nodename}:{child}"
