"""The loopback E2B itself, asked by the bare SDK: it has to be as good, and as bad, as the real one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event, Thread

import pytest
from e2b import (
    AuthenticationException,
    CommandExitException,
    FileNotFoundException,
    InvalidArgumentException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)

from tests.support.cloud.e2b import E2BCloud


@pytest.fixture
def sandbox(cloud: E2BCloud) -> Iterator[Sandbox]:
    sandbox = Sandbox.create(timeout=60, metadata={"who": "me & ü"}, envs={"A": "1"})
    yield sandbox
    sandbox.kill()


def left(sandbox: Sandbox) -> float:
    return (sandbox.get_info().end_at - datetime.now(UTC)).total_seconds()


def test_commands_run_in_a_login_shell_at_home(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo $A $B; pwd; shopt -q login_shell && echo login; echo err >&2", envs={"B": "2"})
    assert (result.stdout, result.stderr) == ("1 2\n/home/user\nlogin\n", "err\n")
    with pytest.raises(CommandExitException) as ended:
        sandbox.commands.run("exit 7")
    assert ended.value.exit_code == 7


def test_output_streams(sandbox: Sandbox) -> None:
    first = Event()
    lines: list[str] = []

    def hear(text: str) -> None:
        lines.append(text)
        first.set()

    code = "echo one; until [ -e go ]; do sleep 0.02; done; echo two"
    thread = Thread(target=lambda: sandbox.commands.run(code, on_stdout=hear))
    thread.start()
    assert first.wait(30)
    assert lines == ["one\n"]
    sandbox.files.write("go", "")
    thread.join(30)
    assert "".join(lines) == "one\ntwo\n"


def test_a_time_out_kills_the_command_and_nothing_else(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutException):
        sandbox.commands.run("setsid sleep 50 & sleep 50", timeout=1)
    survivors = sandbox.commands.run("pgrep -f 'sleep 50' -c || true").stdout
    assert int(survivors) >= 1


def test_a_command_outlives_its_listener(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("until [ -e go ]; do sleep 0.02; done; touch done", background=True)
    handle.disconnect()
    assert handle.pid in [process.pid for process in sandbox.commands.list()]
    sandbox.files.write("go", "")
    sandbox.commands.run("until [ -e done ]; do sleep 0.02; done")


def test_commands_can_be_fed_and_killed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.send_stdin("hello")
    handle.close_stdin()
    assert handle.wait().stdout == "hello"
    handle = sandbox.commands.run("sleep 50", background=True)
    assert handle.kill()
    with pytest.raises(CommandExitException) as ended:
        handle.wait()
    assert ended.value.exit_code == -1


def test_files(sandbox: Sandbox) -> None:
    for how in (None, True):
        sandbox.files.write("a b/ü.txt", b"\x00\xff", use_octet_stream=how)
        assert bytes(sandbox.files.read("a b/ü.txt", format="bytes")) == b"\x00\xff"
    sandbox.files.write("/tmp/streamed", iter([b"x" * 70_000, b"y"]))
    assert sandbox.commands.run("wc -c < /tmp/streamed").stdout == "70001\n"
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("missing")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.read("a b")


def test_a_key_names_one_request(cloud: E2BCloud) -> None:
    first = Sandbox.create(timeout=60, idempotency_key="key-1")
    assert Sandbox.create(timeout=60, idempotency_key="key-1").sandbox_id == first.sandbox_id
    with pytest.raises(SandboxException) as refused:
        Sandbox.create(timeout=61, idempotency_key="key-1")
    assert refused.value.status_code == 422
    assert len(cloud.sandboxes()) == 1


def test_lists_are_filtered_and_paged(cloud: E2BCloud, sandbox: Sandbox) -> None:
    cloud.world.page_size = 2
    others = [Sandbox.create(timeout=60, metadata={"who": "others"}) for _ in range(3)]
    others[0].pause()

    def ids(query: SandboxQuery) -> set[str]:
        pages, found = Sandbox.list(query=query), set()
        while pages.has_next:
            found |= {info.sandbox_id for info in pages.next_items()}
        return found

    assert ids(SandboxQuery(metadata={"who": "me & ü"})) == {sandbox.sandbox_id}
    assert ids(SandboxQuery(metadata={"who": "others"})) == {other.sandbox_id for other in others}
    assert ids(SandboxQuery(state=[SandboxState.PAUSED])) == {others[0].sandbox_id}


def test_a_deadline_may_be_set_sooner_but_connecting_only_moves_it_later(sandbox: Sandbox) -> None:
    sandbox.set_timeout(1000)
    sandbox.connect(timeout=10)
    assert left(sandbox) > 900
    sandbox.set_timeout(20)
    assert left(sandbox) <= 20
    sandbox.connect()
    assert 200 < left(sandbox) <= 300


def test_a_pause_keeps_processes_and_connecting_wakes(sandbox: Sandbox) -> None:
    sandbox.commands.run("nohup sh -c 'until [ -e go ]; do sleep 0.02; done; touch done' >/dev/null 2>&1 &")
    assert (sandbox.pause(), sandbox.pause()) == (True, False)
    assert sandbox.get_info().state is SandboxState.PAUSED
    with pytest.raises(SandboxNotRunningException):
        sandbox.commands.run("true")
    with pytest.raises(SandboxNotFoundException):
        sandbox.set_timeout(50)
    sandbox.connect(timeout=50)
    sandbox.commands.run("touch go; until [ -e done ]; do sleep 0.02; done")


def test_what_is_gone(cloud: E2BCloud, sandbox: Sandbox) -> None:
    sandbox.set_timeout(0)
    while cloud.sandboxes():
        Event().wait(0.01)
    for ask in (sandbox.get_info, sandbox.pause, sandbox.connect, lambda: sandbox.set_timeout(9)):
        with pytest.raises(SandboxNotFoundException):
            ask()
    with pytest.raises(SandboxNotRunningException):
        sandbox.commands.run("true")
    assert sandbox.kill() is False
    assert sandbox.is_running() is False


def test_a_wrong_key_is_refused(cloud: E2BCloud) -> None:
    with pytest.raises(AuthenticationException):
        Sandbox.create(api_key="e2b_wrong")
    assert cloud.sandboxes() == []
