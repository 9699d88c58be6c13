"""What a container is made with, and what is made of those that were begun and not finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nexus.adapters.providers.docker import naming
from nexus.domain.errors import ProviderInvalidRequest
from nexus.domain.provider import Limits, Template
from tests.integration.docker.conftest import PATIENCE, Lab
from tests.support.dockerd import Engine
from tests.support.waiting import until

CANARY = "canary-4b1d"


def test_the_profile_is_hardened(lab: Lab) -> None:
    seen = lab.sandbox(limits=Limits(memory_mb=128, cpus=0.5, processes=50, disk_mb=32))
    record = lab.container(seen)
    host = record["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert set(host["CapAdd"]) == {"SETUID", "SETGID", "KILL", "NET_ADMIN"}
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["PidsLimit"] == 50
    assert host["NanoCpus"] == 500_000_000
    assert host["Memory"] == host["MemorySwap"] == (128 + 32 + 8 + 32) << 20
    assert host["LogConfig"]["Type"] == "none"
    assert host["RestartPolicy"]["Name"] == "no"
    assert not record["Config"]["OpenStdin"]


def test_code_is_another_user_without_rights(lab: Lab) -> None:
    first, second = lab.sandbox(), lab.sandbox()
    status = lab.run(
        first.ref, "grep -E '^(Uid|Gid|Groups|Cap(Prm|Eff|Inh|Amb)|NoNewPrivs)' /proc/self/status"
    ).stdout.decode()
    found = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    assert found["Uid"] == found["Gid"] == [first.ref.data["uid"]] * 4
    assert int(first.ref.data["uid"]) > 10_000
    assert found["Groups"] in ([], [first.ref.data["uid"]])
    assert all(int(found[name][0], 16) == 0 for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"))
    assert found["NoNewPrivs"] == ["1"]
    agent = lab.run(first.ref, "cat /proc/1/status").stdout.decode()
    assert "Uid:\t0\t0\t0\t0" in agent
    effective = int(agent.partition("CapEff:\t")[2].split()[0], 16)
    assert effective == (1 << 5) | (1 << 6) | (1 << 7), "KILL, SETGID, SETUID; no NET_ADMIN any more"
    assert first.ref.data["uid"] != second.ref.data["uid"]


def test_a_secret_reaches_the_code_and_nothing_else(lab: Lab, docker_engine: Engine, folder: Path) -> None:
    seen = lab.sandbox(env={"TOKEN": CANARY}, template=Template(env={"OTHER": CANARY + "-template"}))
    assert lab.run(seen.ref, "echo $TOKEN $OTHER").stdout.decode() == f"{CANARY} {CANARY}-template\n"
    assert CANARY not in json.dumps(lab.container(seen))
    assert CANARY not in json.dumps(lab.engine.top(seen.ref.data["container"], "-eo pid,args"))
    assert CANARY not in repr(seen)
    for path in [*folder.rglob("*"), docker_engine.root / "dockerd.log"]:
        if path.is_file():
            assert CANARY not in path.read_text(errors="replace"), path
    hidden = "cat /proc/1/environ /proc/1/cmdline 2>/dev/null | tr '\\0' ' '; grep -rs canary- /run /tmp 2>/dev/null"
    assert CANARY.encode() not in lab.run(seen.ref, f"unset TOKEN OTHER; {hidden}").stdout


def test_a_secret_of_a_bare_container_is_for_root_alone(bare_lab: Lab) -> None:
    seen = bare_lab.sandbox(env={"TOKEN": CANARY})
    assert bare_lab.run(seen.ref, "echo $TOKEN").stdout.decode() == f"{CANARY}\n"
    assert CANARY not in json.dumps(bare_lab.container(seen))
    assert bare_lab.run(seen.ref, "cat /run/nexus/env").exit_code != 0


def test_the_network_policy(lab: Lab) -> None:
    look = "cat /sys/class/net/*/address | sort -u | wc -l; ls /sys/class/net"
    closed = lab.sandbox(network="none")
    assert lab.run(closed.ref, "ls /sys/class/net").stdout == b"lo\n"
    open_ = lab.sandbox()
    assert b"eth0" in lab.run(open_.ref, look).stdout
    assert open_.notes == ()


def test_sandboxes_do_not_reach_each_other_nor_the_host(lab: Lab) -> None:
    """With a listener in one sandbox, another one and the host's side of the bridge as well."""
    server, client = lab.sandbox(), lab.sandbox()
    serve = "import socket, time\ns = socket.create_server(('0.0.0.0', 4000))\nprint('up', flush=True)\ntime.sleep(60)"
    reach = (
        "import socket, sys\nfor host in sys.stdin.read().split():\n"
        "    s = socket.socket(); s.settimeout(2)\n"
        "    try: s.connect((host, 4000)); print('REACHED', host)\n"
        "    except OSError as error: print(type(error).__name__, error.errno)\n"
    )
    address = lab.container(server)["NetworkSettings"]
    with ThreadPoolExecutor() as pool:
        heard: list[bytes] = []
        request = pool.submit(lab.run, server.ref, serve, "python", 20, lambda _stream, data: heard.append(data))
        until(lambda: heard, "the server listens")
        own = lab.run(server.ref, reach, "python", stdin=b"127.0.0.1")
        assert own.stdout == b"REACHED 127.0.0.1\n"
        hosts = f"{address['IPAddress']} {address['Gateway']} 169.254.169.254"
        result = lab.run(client.ref, reach, "python", stdin=hosts.encode())
        assert result.stdout.decode().splitlines() == ["OSError 101"] * 3, result
        lab.provider.destroy(server.ref)
        assert request.exception(PATIENCE) is not None


COUNT_FORKS = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(30)
        n += 1
except OSError:
    print(n)
"""


def test_limits_hold(lab: Lab) -> None:
    seen = lab.sandbox(limits=Limits(memory_mb=64, processes=24, disk_mb=16))
    memory = lab.run(seen.ref, "x = bytearray(100 << 20)", "python")
    assert memory.exit_code != 0
    assert int(lab.run(seen.ref, COUNT_FORKS, "python").stdout) < 24
    files = "~/a /tmp/b /dev/shm/c"
    fill = f"for f in {files}; do head -c 100000000 /dev/zero > $f; done 2>/dev/null; du -cb {files} | tail -1"
    assert 12 << 20 < int(lab.run(seen.ref, fill).stdout.split()[0]) <= (16 + 4) << 20
    assert lab.run(seen.ref, f"rm {files}; echo well").stdout == b"well\n"
    assert lab.run(seen.ref, "touch /usr/x /etc/x /x").exit_code != 0, "the rest is read-only"


def test_a_name_that_somebody_else_has(lab: Lab, docker_image: str) -> None:
    spec = lab.spec()
    name = naming.container_name(spec.installation, spec.sandbox_id, spec.generation)
    theirs = lab.engine.create_container(docker_image, ["true"], name=name)["Id"]
    try:
        with pytest.raises(ProviderInvalidRequest, match="somebody else"):
            lab.provider.ensure(spec)
        assert lab.provider.discard(spec.sandbox_id, spec.installation) == 0
        assert lab.engine.inspect_container(theirs)["State"]["Status"] == "created"
    finally:
        lab.engine.remove_container(theirs)


def test_installations_on_one_engine_do_not_touch_each_other(lab: Lab) -> None:
    mine, theirs = lab.spec(), lab.spec(installation=f"{lab.installation}x")
    same_id = replace(theirs, sandbox_id=mine.sandbox_id)
    lab.made.append(same_id)
    first, second = lab.provider.ensure(mine), lab.provider.ensure(same_id)
    assert first.ref != second.ref
    lab.run(first.ref, "echo mine > file")
    assert lab.run(second.ref, "cat file").exit_code != 0
    assert lab.provider.discard(mine.sandbox_id, mine.installation) == 1
    assert lab.provider.inspect(second.ref).condition == "running"


CREATOR = """
import os, signal, sys
from datetime import datetime, timezone
from pathlib import Path
from nexus.adapters.providers.docker import DockerProvider, containers, inside, agent
from nexus.domain.provider import Limits, SandboxSpec, Template
host, image, folder, sandbox_id, installation, step = sys.argv[1:]
place, _, name = step.rpartition('.')
owner = {'Containers': containers.Containers, 'AgentInside': agent.AgentInside}[place]
real = getattr(owner, name)
def die(*arguments, **more):
    real(*arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, die)
DockerProvider(host, image=image, folder=Path(folder)).ensure(SandboxSpec(
    sandbox_id=sandbox_id, generation=1, installation=installation, name='victim', template=Template(),
    expires_at=datetime(2100, 1, 1, tzinfo=timezone.utc), limits=Limits(memory_mb=128), env={'TOKEN': 'x'}))
"""


@pytest.mark.parametrize("step", ["Containers.create", "Containers.start", "AgentInside.configure"])
def test_a_creator_killed_at_any_step_leaves_what_can_be_found(
    lab: Lab, docker_engine: Engine, docker_image: str, folder: Path, step: str
) -> None:
    spec = lab.spec(env={"TOKEN": "x"})
    arguments = [docker_engine.host, docker_image, str(folder), spec.sandbox_id, spec.installation, step]
    env = {**os.environ, "PYTHONPATH": "src"}
    dead = subprocess.run([sys.executable, "-c", CREATOR, *arguments], env=env, capture_output=True, timeout=60)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    whole = step == "AgentInside.configure"
    assert len(lab.provider.find(spec.sandbox_id, spec.installation)) == int(whole)
    assert len(list(lab.provider.owned(spec.installation))) == 1
    adopted = lab.provider.ensure(spec)
    assert lab.run(adopted.ref, "echo $TOKEN").stdout == b"x\n"
    assert lab.provider.discard(spec.sandbox_id, spec.installation) == 1
    assert list(lab.provider.owned(spec.installation)) == []
