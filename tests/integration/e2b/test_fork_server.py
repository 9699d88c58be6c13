"""What keeps a sandbox's later runs is as true as a keeper of their own, whatever becomes of it or is said to it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus.adapters.providers.e2b import E2BProvider
from nexus.adapters.providers.e2b.guest import _DOOR
from nexus.domain.provider import ExecutionResult, Ref, RunRequest, SandboxSpec
from tests.integration.e2b.conftest import MakeRequest
from tests.support.cloud.common import Machine
from tests.support.cloud.e2b import E2BCloud
from tests.support.cloud.e2b_control import API_KEY
from tests.support.cloud.e2b_warm import machine_of, servers, until_ready, warm_up


@pytest.fixture
def provider(cloud: E2BCloud) -> Iterator[E2BProvider]:
    provider = E2BProvider(API_KEY, patience=20)
    yield provider
    provider.close()


class Warm:
    """A sandbox with a fork server, and runs in it."""

    def __init__(self, cloud: E2BCloud, provider: E2BProvider, ref: Ref, make_request: MakeRequest) -> None:
        self.provider, self.ref, self._request = provider, ref, make_request
        self.server = warm_up(provider, cloud, ref)
        self.machine: Machine = machine_of(cloud, ref)

    def request(self, code: str) -> RunRequest:
        return self._request(code)

    def run(self, code: str, **fields: object) -> ExecutionResult:
        return self.provider.run(self.ref, self._request(code, **fields))

    def says(self, code: str, **fields: object) -> str:
        result = self.run(code, **fields)
        assert (result.exit_code, result.stderr) == (0, b"")
        return result.stdout.decode()

    def keeper(self) -> str:
        """What keeps a run just now: the command line of a program's parent."""
        return self.says("tr '\\0' ' ' < /proc/$PPID/cmdline")

    def is_kept_by_the_server(self) -> bool:
        return self.keeper().startswith("nexus run ")


@pytest.fixture
def warm(cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest) -> Warm:
    return Warm(cloud, provider, provider.ensure(spec).ref, make_request)


# --- the same as without -------------------------------------------------------------------------------------------
PROFILE = r"""
export PLAIN='a b' EMPTY= QUOTES="\"'\`\$HOME\\" LINES=$'one\ntwo\n' ODD=$'\001\033\177\t' LATIN=$'\351' GREEK='λόγος'
export UNSET; declare -ix NUMBER=7; declare -rx FIXED=yes; hidden=1
umask 027; cd /tmp; ulimit -n 200
"""
SEEN = r"""
import json, os, resource, signal
status = open("/proc/self/status").read()
skip = {"_", "NEXUS_EXECUTION"}
print(json.dumps([
    sorted((k, v) for k, v in os.environ.items() if k not in skip),
    os.getcwd(), os.umask(0), os.getpgid(0) == os.getpid(),
    resource.getrlimit(resource.RLIMIT_NOFILE), sorted(os.listdir("/proc/self/fd")), os.readlink("/proc/self/fd/0"),
    [str(signal.getsignal(n)) for n in range(1, 32)], status.partition("SigPnd")[2].split("SigCgt")[0],
    os.getuid(), os.nice(0),
]))
"""


def test_a_program_sees_what_it_sees_without(
    cloud: E2BCloud, provider: E2BProvider, spec: SandboxSpec, make_request: MakeRequest
) -> None:
    ref = provider.ensure(spec).ref
    provider.write_file(ref, ".profile", [PROFILE.encode()], limit=9999)
    env = {"GIVEN": "one\ntwo", "A.B": "no name to a shell"}
    without = provider.run(ref, make_request(SEEN, "python", env=env))
    until_ready(machine_of(cloud, ref))
    kept = provider.run(ref, make_request(SEEN, "python", env=env))
    assert (without.exit_code, without.stderr) == (kept.exit_code, kept.stderr) == (0, b"")
    assert without.stdout == kept.stdout
    assert b"no name to a shell" in kept.stdout


def test_a_profile_that_changed_is_heeded(warm: Warm) -> None:
    warm.provider.write_file(warm.ref, ".profile", [b"umask 035; cd /usr; export NEW=1; unset LANG\n"], limit=99)
    assert warm.says("umask; pwd; echo $NEW ${LANG-gone}") == "0035\n/usr\n1 gone\n"
    assert warm.is_kept_by_the_server()


def test_any_character_passes_both_ways(warm: Warm) -> None:
    every = "".join(map(chr, [*range(1, 256), 0x20AC, 0x1F600]))
    assert warm.says(f"import sys; sys.stdout.buffer.write({every!r}.encode())", language="python") == every
    assert warm.says("cat", stdin=every.encode()) == every
    assert warm.run("printf '\\0\\377'").stdout == b"\0\xff"
    assert warm.is_kept_by_the_server()


@pytest.mark.parametrize(
    "profile",
    ["ulimit -n 99", "f() { echo f; }; export -f f", "export -a LIST=(1)", "set -o posix", "set -eu; set -o noclobber"],
)
def test_what_it_cannot_hand_down_is_left_to_a_keeper_of_its_own(warm: Warm, profile: str) -> None:
    warm.provider.write_file(warm.ref, ".profile", [f"{profile}\n".encode()], limit=999)
    seen = warm.says("ulimit -n; declare -F; echo ${LIST-} done", env={"X": "1"})
    assert seen.endswith("done\n")
    assert seen.startswith("99\n") == profile.startswith("ulimit")
    assert ("declare -fx f" in seen) == ("export -f" in profile)
    assert until_ready(warm.machine) == warm.server, "the server stays for those that it can keep"


# --- its end -------------------------------------------------------------------------------------------------------
def test_a_run_that_kills_everything_is_followed_by_one_that_works(warm: Warm) -> None:
    # All that a user's processes can reach on E2B; 1 and 2 are the machine itself here.
    code = "for p in /proc/[0-9]*; do p=${p#/proc/}; (( p > 2 && p != $$ )) && kill -KILL $p; done; kill -KILL $$"
    assert warm.run(code).exit_code == 137
    assert warm.says("echo fine") == "fine\n"
    assert until_ready(warm.machine, other_than=warm.server)
    assert warm.is_kept_by_the_server()


@pytest.mark.parametrize("whom", [0, 1, 2], ids=["the server", "the next keeper", "the next command"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], ids=lambda number: number.name)
def test_whatever_becomes_of_it_the_next_run_is_true(warm: Warm, whom: int, number: signal.Signals) -> None:
    os.kill(servers(warm.machine)[whom], number)
    begin = time.monotonic()
    result = warm.run("echo fine; exit 3")
    assert (result.exit_code, result.stdout, result.signal) == (3, b"fine\n", None)
    assert time.monotonic() - begin < 5
    assert warm.says("echo again") == "again\n"
    until_ready(warm.machine)
    assert warm.is_kept_by_the_server()


def test_a_run_goes_on_without_the_server(warm: Warm) -> None:
    heard: list[bytes] = []

    def kill(_stream: object, data: bytes) -> None:
        if not heard:
            os.kill(warm.server, signal.SIGKILL)
        heard.append(data)

    request = warm.request("echo one; until [ -e go ]; do sleep 0.01; done; echo two; exit 4")
    with ThreadPoolExecutor() as pool:
        run = pool.submit(warm.provider.run, warm.ref, request, kill)
        while not heard:
            time.sleep(0.01)
        warm.provider.write_file(warm.ref, "go", [b""], limit=9)
        result = run.result(30)
    assert (result.stdout, result.exit_code) == (b"one\ntwo\n", 4)


def test_a_keeper_that_dies_takes_its_run_with_it_and_no_other(warm: Warm) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(warm.run, "sleep 1; exit 5")
        result = warm.run("(sleep 60) & kill -KILL $PPID; sleep 60")
        assert (result.exit_code, result.signal) == (137, 9)
        assert other.result(30).exit_code == 5
    assert not [line for line in warm.machine.processes().values() if "sleep" in line]


# --- several -------------------------------------------------------------------------------------------------------
def test_runs_at_once_are_told_apart(warm: Warm) -> None:
    def one(number: int) -> tuple[int, bytes, bool]:
        timeout = 1 if number == 3 else 20
        code = f"echo {number}; sleep {60 if number == 3 else 0.3}; exit {number}"
        result = warm.run(code, timeout=timeout)
        return result.exit_code, result.stdout, result.timed_out

    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(one, range(12)))
    assert told == [(124 if n == 3 else n, b"%d\n" % n, n == 3) for n in range(12)]


def test_another_process_finds_the_server_that_is_there(warm: Warm, make_request: MakeRequest) -> None:
    newcomer = E2BProvider(API_KEY)
    result = newcomer.run(warm.ref, make_request("tr '\\0' ' ' < /proc/$PPID/cmdline"))
    assert result.stdout.startswith(b"nexus run ")
    newcomer.close()
    assert until_ready(warm.machine) == warm.server


def test_it_lives_through_a_pause(warm: Warm, spec: SandboxSpec) -> None:
    warm.provider.pause(warm.ref, lambda _ref: None)
    warm.provider.resume(spec, warm.ref)
    assert warm.is_kept_by_the_server()
    assert until_ready(warm.machine) == warm.server


# --- who talks to it -----------------------------------------------------------------------------------------------
ROOM = "cd /dev/shm/nexus-*"
HOSTILE = {
    "nonsense": "echo nonsense > door",
    "half a knock": "printf half > door",
    "a knock without an order": "printf '%-127s\\n' 'ex_other 1 ' > door",
    "a knock that nobody stands by": (
        "printf '7 1 2 1 4\\nex_fake5100-true\\0declare -x A=\"1\"\\n' > ex_fake.$$.order;"
        " printf '%-127s\\n' \"ex_fake $$ \" > door"
    ),
    "a path": "printf '%-127s\\n' '../../tmp/x 1 ' > door",
    "many knocks": "for i in {1..300}; do printf '%-127s\\n' \"x$i 1 \"; done > door",
    "another pid": "echo 1 > pid",
    "no pid": "rm pid",
    "a pid that is none": "echo '-1 $(touch /tmp/x)' > pid",
    "no door": "rm door; touch door",
    "an empty room": "rm -f *",
    "no room": "cd /; rm -rf /dev/shm/nexus-*",
    "rung bells": "head -c 30000 /dev/zero > bell",
}


@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE)
def test_whoever_talks_to_it_the_next_runs_are_true(warm: Warm, code: str) -> None:
    assert warm.run(f"{ROOM} && timeout 2 bash -c {_quoted(code)}", timeout=10).exit_code == 0
    begin = time.monotonic()
    for number in (3, 0, 7):
        result = warm.run(f"echo fine; exit {number}")
        assert (result.exit_code, result.stdout) == (number, b"fine\n")
    assert time.monotonic() - begin < 8
    until_ready(warm.machine)
    assert not (warm.machine.folder / "tmp/x").exists()


def _quoted(code: str) -> str:
    return "'" + code.replace("'", "'\\''") + "'"


def test_nothing_of_a_run_lies_around_in_its_room(warm: Warm) -> None:
    for _ in range(3):
        warm.says("echo $SECRET", env={"SECRET": "canary"})
    warm.run("exit 3")
    assert until_ready(warm.machine) == warm.server
    room = Path(f"/proc/{warm.server}/root/dev/shm")
    [folder] = room.glob("nexus-*")
    deadline = time.monotonic() + 10
    while len(names := sorted(path.name for path in folder.iterdir())) != 5:
        assert time.monotonic() < deadline, names
        time.sleep(0.01)
    assert [name for name in names if not name.endswith(".next")] == ["bell", "door", "pid", "rehearsal.order"]
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_who_finds_that_the_keeper_gave_up_meanwhile_goes_on_alone(tmp_path: Path) -> None:
    """It ended there on a busy machine: between a look at the answer and its opening the keeper may lose patience."""
    answer = tmp_path / "answer"
    os.mkfifo(answer)
    # The trap is carried out just before the answer is opened.
    script = f"trap '[[ $BASH_COMMAND = shopt* ]] && rm \"$4\"' DEBUG\n{_DOOR}\necho went on alone\n"
    done = subprocess.run(
        ["bash", "-c", script, "door", str(tmp_path), "id", "order", str(answer)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "went on alone\n")
