"""Many at once, and much output: nothing gets stuck and nothing grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from nexus.domain.provider import OUTPUT_CAP, Limits
from tests.integration.docker.conftest import Lab


def test_24_runs_in_one_sandbox(lab: Lab) -> None:
    seen = lab.sandbox(limits=Limits(memory_mb=512, processes=256))

    def work(n: int) -> list[bytes]:
        return [lab.run(seen.ref, f"print({n}, {turn})", "python").stdout for turn in range(5)]

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(work, range(24), timeout=120))
    assert results == [[f"{n} {turn}\n".encode() for turn in range(5)] for n in range(24)]


def test_24_runs_that_overlap(lab: Lab) -> None:
    seen = lab.sandbox(limits=Limits(memory_mb=512, processes=256))
    meet = "touch here-$ME; until [ $(ls here-* | wc -l) = 24 ]; do sleep 0.1; done; echo $ME"
    with ThreadPoolExecutor(24) as pool:
        runs = [pool.submit(lab.run, seen.ref, meet, "bash", 60, env={"ME": str(n)}) for n in range(24)]
        assert [run.result(90).stdout for run in runs] == [f"{n}\n".encode() for n in range(24)]


def test_24_sandboxes_at_once(lab: Lab) -> None:
    specs = [lab.spec(limits=Limits(memory_mb=64, disk_mb=16)) for _ in range(24)]

    def live(n: int) -> bytes:
        ref = lab.provider.ensure(specs[n]).ref
        output = lab.run(ref, f"print({n})", "python").stdout
        assert lab.provider.destroy(ref)
        return output

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(live, range(24), timeout=240)) == [f"{n}\n".encode() for n in range(24)]
    assert list(lab.provider.owned(lab.installation)) == []


def test_24_runs_through_a_remote_engine(remote_lab: Lab) -> None:
    seen = remote_lab.sandbox(limits=Limits(memory_mb=512, processes=256))
    with ThreadPoolExecutor(24) as pool:
        outputs = list(pool.map(lambda n: remote_lab.run(seen.ref, f"echo {n}").stdout, range(24), timeout=120))
    assert outputs == [f"{n}\n".encode() for n in range(24)]


FLOOD = """
import resource, sys, json, uuid
from nexus.adapters.providers.docker import DockerProvider
from nexus.domain.provider import Ref, RunRequest
provider = DockerProvider(sys.argv[2])
ref = Ref.from_json(json.loads(sys.argv[1]))
def run(code):
    return provider.run(ref, RunRequest('ex_' + uuid.uuid4().hex, 120, 'bash', code))
run(b'head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = run(b'head -c 1000000000 /dev/zero')
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([before, after, len(result.stdout), result.stdout_bytes]))
"""


def flood(lab: Lab) -> None:
    seen = lab.sandbox()
    arguments = [json.dumps(seen.ref.to_json()), lab.provider.url]
    env = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-c", FLOOD, *arguments], capture_output=True, text=True, timeout=200, env=env, check=True
    )
    before, after, kept, total = json.loads(done.stdout)
    assert (kept, total) == (OUTPUT_CAP, 1_000_000_000)
    assert after <= before * 1.2, f"the manager grew from {before} to {after} KiB"


def test_a_gigabyte_of_output(lab: Lab) -> None:
    flood(lab)


def test_a_gigabyte_of_output_through_a_remote_engine(remote_lab: Lab) -> None:
    flood(remote_lab)


def test_a_gigabyte_of_output_without_python(bare_lab: Lab) -> None:
    flood(bare_lab)


def test_a_fork_bomb_ends_in_time(lab: Lab, bare_lab: Lab) -> None:
    bombs = {
        "python": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "bash": "bomb() { bomb | bomb & }; bomb; while :; do bomb; done 2>/dev/null",
    }
    for each, language in ((lab, "python"), (lab, "bash"), (bare_lab, "bash")):
        seen = each.sandbox(limits=Limits(memory_mb=256, processes=100))
        begin = time.monotonic()
        result = each.run(seen.ref, bombs[language], language, timeout=1)
        assert result.timed_out
        assert time.monotonic() - begin < 2.0
        assert each.run(seen.ref, "echo usable").stdout == b"usable\n"
