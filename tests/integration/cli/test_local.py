"""The command line with real sandboxes on this machine: nothing here is faked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli.console import PATIENCE, ROOT, Console, reading
from tests.support.waiting import until


@pytest.fixture
def real(nexus: Console) -> Iterator[Console]:
    """An installation with its default provider, whose sandboxes end with the test."""
    console = nexus
    del console.env["NEXUS_SANDBOX_PROVIDER"]
    yield console
    console.ok("sandbox", "stop", "--all")


def processes(marker: str) -> list[int]:
    """Processes of this machine, those inside sandboxes too, that have the marker in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended while we looked
    return found


def eventually_none(marker: str) -> None:
    until(lambda: not processes(marker), "its processes were gone")


@pytest.fixture
def marker() -> str:
    """A number of seconds to sleep that no other process on this machine sleeps."""
    return f"8{uuid.uuid4().int % 10**9:09d}.5"


def test_the_whole_story(real: Console, tmp_path: Path) -> None:
    created = real.process("sandbox", "create", "my-sandbox", "--ttl", "30")
    assert (created.status, created.text[:20]) == (0, "Created sandbox: sb_")
    sandbox_id = created.text.split()[-1]
    run = real.process("sandbox", "run", sandbox_id, "-c", "print('Hello from sandbox!')")
    assert (run.status, run.out, run.err) == (0, b"Hello from sandbox!\n", "")
    (tmp_path / "script.py").write_text("import sys\nprint(sys.version_info.major)\nsys.exit(3)\n")
    run = real.process("sandbox", "run", "my-sandbox", "-f", str(tmp_path / "script.py"))
    assert (run.status, run.out) == (3, b"3\n")
    run = real.process("sandbox", "run", sandbox_id, "-l", "javascript", "-c", "-", stdin=b"console.log('test')\n")
    assert (run.status, run.out) == (0, b"test\n")
    run = real.process("sandbox", "run", sandbox_id, "-l", "bash", "-c", "echo err >&2; kill -9 $$")
    assert (run.status, run.err) == (137, "err\n")
    run = real.process("sandbox", "exec", sandbox_id, "--", "printf", "%s|", "a b", "-n")
    assert (run.status, run.out) == (0, b"a b|-n|")
    assert real.process("sandbox", "exec", sandbox_id, "--", "no-such-program").status in (126, 127)
    run = real.process("sandbox", "run", sandbox_id, "-c", "import os; os.write(1, bytes([0, 255, 10]))")
    assert run.out == b"\x00\xff\n"

    for code in ("x = 20", "x += 1; print(2 * x)"):
        run = real.process("sandbox", "run", sandbox_id, "--session", "work", "-c", code)
    assert run.out == b"42\n"

    assert real.process("sandbox", "cp", "-", "my-sandbox:/tmp/in", stdin=b"\x00\xff").status == 0
    assert real.process("sandbox", "run", sandbox_id, "-l", "bash", "-c", "wc -c </tmp/in").out.strip() == b"2"
    assert real.process("sandbox", "cp", f"{sandbox_id}:/tmp/in", str(tmp_path / "out")).status == 0
    assert (tmp_path / "out").read_bytes() == b"\x00\xff"

    assert real.process("sandbox", "pause", sandbox_id).status == 0
    assert real.process("sandbox", "run", sandbox_id, "-c", "1").status == 6
    assert real.process("sandbox", "resume", sandbox_id).status == 0
    assert real.process("sandbox", "list", "--quiet").text.split() == [sandbox_id]
    assert real.process("sandbox", "status", sandbox_id, "--json").json["provider"] == "local"
    assert real.process("reconcile", env=real.operator).out == b""
    assert real.process("doctor").status == 0
    assert real.process("sandbox", "stop", sandbox_id).text == f"Stopped sandbox: {sandbox_id}\n"
    assert real.process("sandbox", "list", "--quiet").out == b""
    history = [event["type"] for event in real.process("events", "list", sandbox_id, "--json").json["events"]]
    assert (history[0], history[-1]) == ("sandbox.requested", "sandbox.stopped")
    assert history.count("execution.finished") == 10
    assert real.process("projections", "verify", env=real.owner).status == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])
def test_a_signal_kills_what_runs(real: Console, marker: str, number: signal.Signals, status: int) -> None:
    real.create()
    code = f"(setsid sleep {marker} &)\necho begun\nexec sleep {marker}"
    process = real.start("sandbox", "run", "box", "-l", "bash", "--timeout", "300", "-c", code)
    try:
        assert process.stdout is not None
        assert next(reading(process.stdout)) == b"begun"
        while not processes(f"sleep\0{marker}"):
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
    finally:
        process.kill()
        process.communicate()
    eventually_none(f"sleep\0{marker}")
    assert real.story()[-1] == "ExecutionLost"
    assert real.process("sandbox", "run", "box", "-c", "print(1)").out == b"1\n"


def test_a_time_out_kills_what_runs_and_keeps_its_output(real: Console, marker: str) -> None:
    real.create()
    code = f"(setsid sleep {marker} &)\necho begun\nexec sleep {marker}"
    run = real.process("sandbox", "run", "box", "-l", "bash", "--timeout", "1", "-c", code)
    assert (run.status, run.out) == (124, b"begun\n")
    eventually_none(f"sleep\0{marker}")


def test_head_kills_what_writes_on_and_on(real: Console) -> None:
    real.create()
    script = (
        f'{sys.executable} -m nexus.cli sandbox run box -l bash -c "yes nexus" | head -n 2; echo ${{PIPESTATUS[0]}}'
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script], env=real.environment(), capture_output=True, timeout=PATIENCE, cwd=ROOT
    )
    assert done.stdout.startswith(b"nexus\nnexus\n")
    assert (done.stdout.split()[-1], done.stderr) == (b"141", b"")
    assert real.story()[-1] == "ExecutionLost"


def test_two_processes_share_a_sandbox_and_its_files(real: Console) -> None:
    sandbox_id = real.create()
    writer = real.start("sandbox", "run", "box", "-l", "bash", "-c", "until [ -e go ]; do sleep 0.02; done; cat go")
    try:
        done = real.process("sandbox", "run", sandbox_id[:12], "-l", "bash", "-c", "echo hello >go.new && mv go.new go")
        assert done.status == 0
        out, err = writer.communicate(timeout=PATIENCE)
    finally:
        writer.kill()
        writer.communicate()
    assert (out, err, writer.returncode) == (b"hello\n", b"", 0)


def test_what_the_caller_hands_over_stays_where_it_belongs(real: Console) -> None:
    """Variables of the sandbox and of a run are seen by the code and by nothing that is kept."""
    secret = f"canary-{uuid.uuid4().hex}"
    real.env["HANDED_OVER"] = secret
    sandbox_id = real.create("box", "--env", "HANDED_OVER", "--env", f"MADE={secret}-1")
    code = "import os; print(os.environ['HANDED_OVER'], os.environ['MADE'], os.environ.get('NEXUS_USER'))"
    run = real.process("sandbox", "run", "box", "-c", code)
    assert run.text == f"{secret} {secret}-1 None\n"
    run = real.process("sandbox", "run", "box", "--env", f"ONCE={secret}-2", "-l", "bash", "-c", "echo $ONCE")
    assert run.text == f"{secret}-2\n"
    assert sandbox_id.encode() in (kept := real.kept())
    assert secret.encode() not in kept
    for command in (["events", "list"], ["sandbox", "status", "box"], ["sandbox", "logs", "box"]):
        assert secret not in real.ok(*command, "--json").text


def test_output_streams_while_the_program_runs(real: Console) -> None:
    real.create()
    code = "import sys, time\nprint('first', flush=True)\nwhile True: time.sleep(0.1)"
    process = real.start("sandbox", "run", "box", "-c", code, "--timeout", "60")
    try:
        assert process.stdout is not None
        assert next(reading(process.stdout)) == b"first"
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.communicate()
