"""A long log is verified in stretches, by several processes: with the same verdict, whatever was done to it."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nexus import config
from nexus.domain.ports import Reading
from nexus.engine.audit import stretches, verifier
from nexus.engine.audit.checkpoints import SigningKey
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.stretches import divide
from nexus.engine.audit.verdict import Verdict
from nexus.engine.wiring import open_reading
from tests.support.world import World
from tests.unit.audit.tampering import sealed_story


@pytest.fixture
def reopen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> partial[Reading]:
    """Opens the store as the command line does; here every log is long, and two events are a stretch."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (0.7, 0.0, 0.0))
    monkeypatch.setattr(verifier, "WORTH", 1)
    monkeypatch.setattr(verifier, "divide", partial(divide, least=2))
    return partial(open_reading, config.load(env={}, file=None, data_dir=tmp_path))


def verdicts(reopen: partial[Reading], **more: Any) -> tuple[Verdict, Verdict]:
    """By several processes, and by this one alone."""
    with closing(reopen()) as reading:
        evidence = LogEvidence(reading)
        return verifier.verify(evidence, reopen=reopen, **more), verifier.verify(evidence, **more)


def test_other_processes_do_it(
    world: World,
    key: SigningKey,
    reopen: partial[Reading],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """They come with a `check` of their own; this one's is not called."""
    sealed_story(world, key)
    monkeypatch.setattr(stretches, "check", None)
    with closing(reopen()) as reading:
        assert verifier.verify(LogEvidence(reading), reopen=reopen).intact
    assert capfd.readouterr() == ("", "")


def test_where_others_are_busy_one_does_it_all(
    world: World, key: SigningKey, reopen: partial[Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_story(world, key)
    monkeypatch.setattr(os, "getloadavg", lambda: (7.0, 0.0, 0.0))
    monkeypatch.setattr(stretches, "ProcessPoolExecutor", None)
    with closing(reopen()) as reading:
        assert verifier.verify(LogEvidence(reading), reopen=reopen).intact


def test_several_processes_come_to_the_same_verdict(world: World, key: SigningKey, reopen: partial[Reading]) -> None:
    signed = sealed_story(world, key)
    together, alone = verdicts(reopen, checkpoints=[signed])
    assert together == alone
    assert together.intact
    assert together.seals == together.events > 10
    with closing(sqlite3.connect(world.folder / "nexus.db")) as database:
        database.execute("DROP TRIGGER events_are_not_updated")
        database.execute("UPDATE events SET actor = 'user:eve' WHERE position = 9")
        database.commit()
    together, alone = verdicts(reopen, checkpoints=[signed])
    assert together == alone
    assert [(finding.kind, finding.position) for finding in together.findings] == [("edited", 9)]


def test_without_room_for_other_processes_one_does_it_all(
    world: World, key: SigningKey, reopen: partial[Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed_story(world, key)

    class Broken:
        def __init__(self, *_: Any) -> None: ...

        def map(self, *_: Any) -> Any:
            raise BrokenProcessPool

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr(stretches, "ProcessPoolExecutor", Broken)
    together, alone = verdicts(reopen)
    assert together == alone
    assert together.intact


@pytest.mark.parametrize("least", [1, 3, 7, 100])
def test_stretches_follow_each_other(least: int) -> None:
    heads = [(place, "", number * 2) for number, place in enumerate((3, 5, 11, 12, 40), start=1)]
    found = divide(heads, least)
    assert found[0][0] < 0
    assert found[-1][1] == 40
    assert [after for after, _ in found[1:]] == [upto for _, upto in found[:-1]]
    assert len(found) == {1: 5, 3: 3, 7: 2, 100: 1}[least]
