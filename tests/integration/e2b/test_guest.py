"""The program inside the sandbox and the reader outside, each alone: what is claimed, told, read and not believed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.adapters.providers.e2b import guest
from nexus.adapters.providers.e2b.guest import End, Frames, Garbled, Output, Word
from nexus.domain.errors import ProviderInvalidRequest
from nexus.domain.provider import RunRequest
from tests.support.cloud.common import Machine
from tests.support.cloud.e2b_warm import until_ready


@pytest.fixture(params=["cold", "warm"])
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """New, or with a fork server in it."""
    machine = Machine(tmp_path)
    if request.param == "warm":
        run(machine, "warm-up", ":")
        until_ready(machine)
    yield machine
    machine.destroy()


def said(machine: Machine, mode: str, name: str, *arguments: str) -> list[guest.Frame]:
    """Run the guest, and read what it says as the SDK hands it out."""
    child = machine.start(["bash", "-c", guest.command(mode, name, *arguments)], stdin=False)
    out, err = child.communicate(timeout=30)
    machine.forget(child)
    assert err == b""
    return list(Frames(name).feed(out.decode()))


def run(machine: Machine, name: str, code: str, *, seconds: str = "10", stdin: str = "-") -> list[guest.Frame]:
    return said(machine, "run", name, seconds, "1000", stdin, "bash", "-c", code)


def test_a_run_is_told_in_frames(machine: Machine) -> None:
    *begun, end = run(machine, "a", "printf out; sleep 0.2; printf '\\xff\\n' >&2; exit 3")
    assert begun == [Word("begun"), Output("stdout", b"out"), Output("stderr", b"\xff\n")]
    assert isinstance(end, End)
    assert (end.status, end.timed_out, end.cancelled, end.left) == (3 << 8, False, False, 0)
    assert (end.stdout_bytes, end.stderr_bytes) == (3, 2)
    assert 0.2 <= end.duration < 10


def test_the_cap_is_kept_at_the_source(machine: Machine) -> None:
    *frames, end = run(machine, "a", "head -c 5000 /dev/zero; head -c 300 /dev/zero >&2")
    sizes = {"stdout": 0, "stderr": 0}
    for frame in frames:
        if isinstance(frame, Output):
            sizes[frame.stream] += len(frame.data)
    assert sizes == {"stdout": 1000, "stderr": 300}
    assert isinstance(end, End)
    assert (end.stdout_bytes, end.stderr_bytes) == (5000, 300)


def test_an_id_is_used_once(machine: Machine) -> None:
    run(machine, "a", "echo -n x >> ran")
    assert run(machine, "a", "echo -n x >> ran") == [Word("used")]
    assert (machine.home / "ran").read_bytes() == b"x"


@pytest.mark.parametrize("first", ["follow", "cancel"])
def test_who_asks_first_keeps_a_late_start_from_happening(machine: Machine, first: str) -> None:
    arguments = ["0"] if first == "follow" else []
    assert said(machine, first, "a", *arguments) == [Word("never")]
    assert said(machine, first, "a", *arguments) == [Word("never")]
    assert run(machine, "a", "touch ran") == [Word("used")]
    assert not (machine.home / "ran").exists()


def test_a_run_is_heard_again_from_any_frame_on(machine: Machine) -> None:
    frames = Frames("a")
    child = machine.start(["bash", "-c", guest.command("run", "a", "10", "1000", "-", "sh", "-c", "echo 1; echo 2")])
    out, _ = child.communicate(timeout=30)
    machine.forget(child)
    heard = []
    for frame in frames.feed(out.decode()):
        heard.append(frame)
        rest = said(machine, "follow", "a", str(frames.offset))
        assert [type(f) for f in heard + rest] in ([Word, Output, End], [Word, Output, Output, End])
    assert said(machine, "follow", "a", str(frames.offset)) == []


def test_what_was_said_is_kept_for_a_while_and_not_for_ever(machine: Machine) -> None:
    def run_and_put_away(name: str) -> None:
        run(machine, name, f"echo {name}")
        while not (machine.folder / f"tmp/.nexus/runs/{name}/done").exists():
            time.sleep(0.01)

    run_and_put_away("first")
    old = machine.folder / "tmp/.nexus/old"
    [shelf] = old.iterdir()
    assert int(shelf.name) == pytest.approx(time.time() / 600, abs=2)
    shelf.rename(old / str(int(shelf.name) - 1))
    run_and_put_away("second")
    assert Word("begun") in said(machine, "follow", "first", "0"), "ten minutes later it is still there"
    (old / str(int(shelf.name) - 1)).rename(old / str(int(shelf.name) - 2))
    run_and_put_away("third")
    assert sorted(p.name for p in old.glob("*/*")) == ["second", "third"]


def test_input_comes_from_the_line_or_from_a_file_that_is_gone_then(machine: Machine) -> None:
    assert Output("stdout", b"typed") in run(machine, "a", "cat", stdin="=typed")
    (machine.home / "in").write_bytes(b"sent")
    assert Output("stdout", b"sent") in run(machine, "b", "cat", stdin=f"@{machine.guest_home}/in")
    assert not (machine.home / "in").exists()


def test_a_fork_bomb_is_stopped(machine: Machine) -> None:
    begin = time.monotonic()
    *_, end = run(machine, "a", "for i in {1..8}; do (while :; do (sleep 5 &) ; done) & done; wait", seconds="1")
    assert isinstance(end, End)
    assert (end.timed_out, end.left) == (True, 0)
    assert time.monotonic() - begin < 10
    assert not [line for line in machine.processes().values() if "sleep" in line]


def test_cancelling_tells_the_run_that_it_was_cancelled(machine: Machine) -> None:
    child = machine.start(["bash", "-c", guest.command("run", "a", "60", "1000", "-", "sleep", "50")])
    while not (machine.folder / "tmp/.nexus/runs/a/frames").exists():
        assert child.poll() is None
    assert said(machine, "cancel", "a") == [Word("cancelled", 0)]
    out, _ = child.communicate(timeout=30)
    machine.forget(child)
    *_, end = Frames("a").feed(out.decode())
    assert isinstance(end, End)
    assert (end.cancelled, end.timed_out) == (True, False)


# --- the order -----------------------------------------------------------------------------------------------------
def test_short_code_travels_on_the_line_and_long_code_as_a_file() -> None:
    short = guest.order(RunRequest("ex_1", 10, code=b"print('short')"))
    assert short.uploads == ()
    assert "short" in short.line
    long = guest.order(RunRequest("ex_1", 10, code=b"#" * 200_000))
    assert long.uploads == (("/tmp/.nexus/in/ex_1.code", b"#" * 200_000),)
    assert len(long.line) < 20_000


@pytest.mark.parametrize("data", [b"\xff", b"a\0b", b"x" * 9000], ids=["not UTF-8", "a NUL", "long"])
def test_what_fits_no_line_is_sent_as_a_file(data: bytes) -> None:
    order = guest.order(RunRequest("ex_1", 10, language="bash", code=b"cat", stdin=data))
    assert order.uploads == (("/tmp/.nexus/in/ex_1.stdin", data),)


def test_a_command_line_that_no_kernel_takes_is_refused() -> None:
    for argv in ((), ("echo", "x" * 200_000), ("a\0b",)):
        with pytest.raises(ProviderInvalidRequest):
            guest.order(RunRequest("ex_1", 10, argv=argv))


@given(st.text(min_size=1))
def test_any_execution_id_makes_a_file_name(execution_id: str) -> None:
    name = guest.token(execution_id)
    assert os.fsencode(name)
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert len(name) <= 100


# --- the reader ----------------------------------------------------------------------------------------------------
STREAM = "motd — 你好\nnexus a\nb\no4\n\xff\n\x00oe3\n\ne1o8\nnexus a\nx256 0 0 6 3 1500 0\n"
HEARD = [
    Word("begun"),
    Output("stdout", b"\xff\n\x00o"),
    Output("stderr", b"\ne1"),
    Output("stdout", b"nexus a\n"),
    End(256, False, False, 6, 3, 1.5, 0),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    frames = Frames("a")
    heard: list[guest.Frame] = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for begin, end in pairwise(edges):
        heard += frames.feed(STREAM[begin:end])
    assert heard == HEARD
    assert frames.offset == len(STREAM) - STREAM.index("\nb\n") - 1


@given(st.integers(1, len(STREAM)))
def test_a_stream_that_broke_goes_on_at_its_last_whole_frame(cut: int) -> None:
    frames = Frames("a")
    heard = list(frames.feed(STREAM[:cut] + "�"))
    body = STREAM[STREAM.index("\nb\n") + 1 :]
    frames.restart()
    heard += frames.feed("nexus a\n" + body[frames.offset :])
    assert heard == HEARD


@pytest.mark.parametrize(
    "nonsense", ["o99999999\n", "o-1\n", "q\n", "x1 2 3\n", "x1 0 0 1 1 1 1 1\n", "\n", "y" * 300, "o1\x00\n", "b \n"]
)
def test_nonsense_is_not_believed(nonsense: str) -> None:
    with pytest.raises(Garbled):
        list(Frames("a").feed(f"nexus a\n{nonsense}"))


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        for frame in Frames("a").feed(f"nexus a\n{text}"):
            assert isinstance(frame, Output | End | Word)
    except Garbled:
        pass
