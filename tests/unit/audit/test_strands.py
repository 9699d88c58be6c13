"""A long log is verified in stretches, by several processes: with the same verdict, whatever was done to it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nexus.domain.ports import Reading
from nexus.engine.audit import evidence, strands, verifier
from nexus.engine.audit.checkpoints import SigningKey
from nexus.engine.audit.evidence import FIRST, LogEvidence, divide
from nexus.engine.audit.strand import numbers
from nexus.engine.audit.stretches import check, stretches
from nexus.engine.audit.verdict import Verdict
from nexus.engine.audit.verifier import verify
from tests.support.world import World
from tests.unit.audit.tampering import KINDS, Session, Tamperer, sealed_story

Open = Callable[[], Reading]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every log is long, each page of it is a stretch, and there are two processors. None of the processes is left."""
    monkeypatch.setattr(strands, "_WORTH", 1)
    monkeypatch.setattr(evidence, "_LEAST", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    found: list[Any] = []

    class Strand(strands._Strand):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr(strands, "_Strand", Strand)
    yield found
    assert None not in [one.status for one in found]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """This process takes no stretch as long as the other one lives. What it does all the same: the ends, in seals."""
    done = []

    def counted(found: Any, stretch: Any, stops: Any) -> Any:
        done.append(stretch.end[1])
        return check(found, stretch, stops)

    monkeypatch.setattr(strands, "numbers", lambda _: iter(()))
    monkeypatch.setattr(strands, "check", counted)
    return done


def verified(open_reading: Open, *checkpoints: Any, **more: Any) -> Verdict:
    with closing(open_reading()) as reading:
        return verify(LogEvidence(reading), checkpoints, **more)


def test_another_process_does_it(
    world: World,
    key: SigningKey,
    open_reading: Open,
    idle: list[int],
    started: list[Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed = sealed_story(world, key)
    monkeypatch.setattr(verifier, "_thorough", None)
    heard: list[tuple[int, int]] = []
    verdict = verified(open_reading, signed, told=lambda *some: heard.append(some))
    assert verdict.intact
    assert verdict.seals == verdict.events > 10
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})
    assert heard[-1] == (verdict.events, verdict.events)
    assert (idle, [one.status for one in started]) == ([], [0])
    assert capfd.readouterr() == ("", "")


def test_both_do_it(world: World, key: SigningKey, open_reading: Open, started: list[Any]) -> None:
    signed = sealed_story(world, key)
    assert verified(open_reading, signed).intact
    assert len(started) == 1


@pytest.mark.parametrize("kind", ["cut", "edited", "moved"])
def test_others_find_what_was_done(
    world: World, key: SigningKey, open_reading: Open, tampering: Session, idle: list[int], kind: str
) -> None:
    signed = sealed_story(world, key)
    done = KINDS[kind](Tamperer(tampering, signed, key, kind))
    found = verified(open_reading, signed).findings
    assert idle == []
    assert [(finding.kind, finding.position) for finding in found] == [(kind, done.position)] * done.findings


def test_what_is_written_meanwhile_is_seen_by_none(
    world: World, key: SigningKey, open_reading: Open, tampering: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process starts after it. Neither what was done since is found, nor what was undone missed."""
    sealed_story(world, key)
    monkeypatch.setattr(strands, "numbers", lambda _: iter(()))
    with closing(open_reading()) as reading, monkeypatch.context() as patched:
        assert list(reading.rows("SELECT 1"))  # Postgres's moment begins with a question
        tampering.run("UPDATE events SET actor = 'user:eve' || actor")
        patched.setattr(verifier, "_thorough", None)
        assert verify(LogEvidence(reading)).intact
    with closing(open_reading()) as reading:
        assert list(reading.rows("SELECT 1"))
        tampering.run("UPDATE events SET actor = replace(actor, 'user:eve', '')")
        assert {finding.kind for finding in verify(LogEvidence(reading)).findings} == {"edited"}
    assert verified(open_reading).intact


def script(folder: Path, text: str) -> str:
    file = folder / "python"
    file.write_text(f"#!{sys.executable}\nimport os, sys\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    "other",
    [
        "",
        "os.read(3, 4)",
        "sys.stdin.buffer.read(); os.read(3, 4); print('[0, n', end='')",
        "sys.stdin.buffer.read(); os.read(3, 4); print('\"open\"')",
    ],
)
def test_what_another_process_leaves_undone_this_one_does(
    world: World,
    key: SigningKey,
    open_reading: Open,
    idle: list[int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    other: str,
) -> None:
    signed = sealed_story(world, key)
    monkeypatch.setattr(sys, "executable", script(tmp_path, other))
    verdict = verified(open_reading, signed)
    assert verdict.intact
    assert idle[-1] == verdict.seals


def test_without_another_process_this_one_does_it_all(
    world: World,
    key: SigningKey,
    open_reading: Open,
    idle: list[int],
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed_story(world, key)
    monkeypatch.setattr(sys, "executable", "/no/such/file")
    assert verified(open_reading).intact
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(sys, "executable", "")
    assert verified(open_reading).intact
    assert len(idle) > len(set(idle)) == len(idle) / 2


def test_an_interrupt_ends_the_others(
    world: World,
    key: SigningKey,
    open_reading: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[Any],
) -> None:
    sealed_story(world, key)
    monkeypatch.setattr(sys, "executable", script(tmp_path, "sys.stdin.buffer.read(); import time; time.sleep(300)"))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verified(open_reading, told=interrupted)
    assert [one.status for one in started] == [-9]


def test_no_number_is_taken_twice() -> None:
    pipe = strands._pipe(range(10_000))
    with ThreadPoolExecutor(2) as threads:
        taken = [*threads.map(lambda _: list(numbers(pipe)), range(2))]
    os.close(pipe)
    assert sorted(itertools.chain(*taken)) == list(range(10_000))
    assert all(some == sorted(some) for some in taken)


def test_a_stretch_begins_and_ends_as_the_chain_says(world: World, key: SigningKey, open_reading: Open) -> None:
    sealed_story(world, key)
    with closing(open_reading()) as reading:
        found = LogEvidence(reading)
        whole = stretches(found.heads())
        assert len(whole) > 3
        head, count = whole[2].begin
        assert check(found, whole[2], [whole[2].bounds[1]]) == {whole[2].bounds[1]: whole[2].end}
        for other in ((whole[1].begin[0], count), (head, count - 1), ("no digest", count)):
            assert check(found, whole[2]._replace(begin=other), ()) is None
        for other in (whole[1].end, (whole[2].end[0], count)):
            assert check(found, whole[2]._replace(end=other), ()) is None


@pytest.mark.parametrize("page", [1, 7, 2000, 60_000])
@pytest.mark.parametrize("count", [0, 1, 999, 20_000, 250_000])
def test_stretches_follow_each_other(monkeypatch: pytest.MonkeyPatch, page: int, count: int) -> None:
    monkeypatch.setattr(evidence, "_LEAST", 2000)
    heads = [(number * 3, "", number) for number in itertools.chain(range(page, count, page), [count])] if count else []
    found = divide(heads)
    assert [after for after, _ in found] == [FIRST, *(upto for _, upto in found[:-1])][: len(found)]
    assert [upto for _, upto in found][-1:] == [place for place, _, _ in heads][-1:]
    sizes = [(upto - max(after, 0)) // 3 for after, upto in found]
    assert all(size < 25_000 + page for size in sizes)
    if len(sizes) > 1:
        assert sizes[-1] <= 2 * 2000 + 2 * page
