"""Kept code and output: captured where it is asked for, read back as what ran, erased so that the log says so."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from nexus.adapters.cipher import MasterKeys
from nexus.domain import events as ev
from nexus.domain.bodies import BodyKind, SealedBody
from nexus.domain.errors import (
    ConfigurationError,
    ExecutionTimedOut,
    InvalidInput,
    NotFound,
    SandboxNotFound,
    StoreUnavailable,
)
from nexus.domain.ports import Reading
from nexus.domain.values import ErasureReason, Principal, SandboxState
from nexus.engine.audit.evidence import LogEvidence
from nexus.engine.audit.sealer import Sealer
from nexus.engine.audit.verdict import Verdict
from nexus.engine.audit.verifier import verify
from nexus.engine.bodies import Body, PartState
from nexus.engine.executions import Execution
from nexus.engine.service import Engine
from nexus.testing import FakeRun, Outcome
from tests.support.world import ADMIN, ANN, BOB, World

CODE = "print('canary-code')"
STRANGER_ADMIN = Principal(user_id="root", tenant_id="other", is_admin=True)


def states(body: Body) -> dict[str, str]:
    return {kind.value: part.state.value for kind, part in body.parts.items()}


def data(body: Body, kind: BodyKind) -> bytes | None:
    return body.parts[kind].data


def erasures(world: World, sandbox_id: str) -> list[ev.BodiesErased]:
    return [e.event for e in world.events(sandbox_id) if isinstance(e.event, ev.BodiesErased)]


@pytest.fixture
def captured(world: World) -> Execution:
    """A run of ann's in a sandbox that captures."""
    world.engine.create(ANN, "box", capture=True)
    return world.engine.run(ANN, "box", code=CODE)


# --- capturing -------------------------------------------------------------------------------------------------------
def test_nothing_is_kept_unless_it_is_asked_for(world: World) -> None:
    box = world.engine.create(ANN, "box")
    run = world.engine.run(ANN, "box", code=CODE)
    assert (box.capture, world.engine.bodies.stock().executions, world.engine.bodies.stock().keys) == (False, 0, 0)
    read = world.engine.bodies.read(ANN, run.execution_id)
    assert states(read) == dict.fromkeys(("code", "stdout", "stderr"), "missing")
    assert {part.detail for part in read.parts.values()} == {"its sandbox does not capture"}
    assert not (world.folder / "keys").exists()


def test_what_ran_is_read_back_and_proven_by_the_log(world: World, captured: Execution) -> None:
    body = world.engine.bodies.read(ANN, captured.execution_id)
    assert states(body) == dict.fromkeys(("code", "stdout", "stderr"), "verified")
    assert (data(body, BodyKind.CODE), data(body, BodyKind.STDOUT)) == (CODE.encode(), CODE.encode())
    assert data(body, BodyKind.STDERR) == b""
    assert (body.language, body.sandbox_id, body.intact) == ("python", captured.sandbox_id, True)
    assert body.parts[BodyKind.CODE].sha256 == hashlib.sha256(CODE.encode()).hexdigest()
    assert captured.notes == ()


def test_a_sandbox_says_for_good_whether_it_captures(world: World) -> None:
    always = world.worker("always", settings={"capture": True})
    assert always.create(ANN, "by-default").capture
    assert not always.create(ANN, "not-this-one", capture=False).capture
    # Another process, whose settings say no, captures what runs in it all the same.
    run = world.engine.run(ANN, "by-default", code=CODE)
    assert states(always.bodies.read(ANN, run.execution_id))["code"] == "verified"
    with pytest.raises(InvalidInput):
        world.engine.create(ANN, "odd", capture="yes")  # type: ignore[arg-type]


def test_the_same_request_with_capture_is_another_request(world: World) -> None:
    from nexus.domain.errors import IdempotencyMismatch

    world.engine.create(ANN, "box", idempotency_key="k", capture=True)
    with pytest.raises(IdempotencyMismatch):
        world.engine.create(ANN, "box", idempotency_key="k")


def test_a_run_that_takes_too_long_keeps_what_it_had_printed(world: World) -> None:
    def slow(run: FakeRun) -> Outcome:
        run.emit("stdout", b"so far")
        run.wait(100)
        return Outcome()

    engine = world.worker("slow", fake={"behaviour": slow})
    engine.create(ANN, "box", capture=True)
    with pytest.raises(ExecutionTimedOut) as caught:
        engine.run(ANN, "box", code="x", timeout=1)
    body = engine.bodies.read(ANN, caught.value.execution_id)
    assert (states(body)["stdout"], data(body, BodyKind.STDOUT)) == ("verified", b"so far")


def test_a_flood_is_kept_as_far_as_the_run_keeps_it(world: World) -> None:
    engine = world.worker("loud", fake={"behaviour": lambda run: Outcome(stdout=b"x" * (3 << 20))})
    engine.create(ANN, "box", capture=True)
    large = "#" + "y" * ((1 << 20) - 1)
    run = engine.run(ANN, "box", code=large)
    assert run.notes == ()
    body = engine.bodies.read(ANN, run.execution_id)
    assert (body.truncated, body.intact) == (True, True)
    assert [len(data(body, kind) or b"") for kind in BodyKind] == [1 << 20, 1 << 20, 0]


def test_commands_are_kept_as_their_digest_has_them(world: World) -> None:
    world.engine.create(ANN, "box", capture=True)
    run = world.engine.run(ANN, "box", argv=["ls", "-la"])
    body = world.engine.bodies.read(ANN, run.execution_id)
    assert (data(body, BodyKind.CODE), states(body)["code"]) == (b"ls\0-la", "verified")


# --- what must not fail a run ----------------------------------------------------------------------------------------
def break_put(world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, *, when: int = 0) -> list[int]:
    """Let the body store fail from its call number `when` on."""
    calls: list[int] = []
    bodies = world.store.bodies
    right = bodies.put

    def put(found: Any) -> bool:
        calls.append(len(found))
        if len(calls) > when:
            raise error
        return bool(right(found))

    monkeypatch.setattr(bodies, "put", put)
    return calls


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("canary-of-a-stranger")])
@pytest.mark.parametrize("when", [0, 1])
def test_a_capture_that_fails_is_said_and_fails_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, when: int
) -> None:
    world.engine.create(ANN, "box", capture=True)
    break_put(world, monkeypatch, error, when=when)
    with caplog.at_level(logging.WARNING, "nexus.capture"):
        run = world.engine.run(ANN, "box", code=CODE)
    assert (run.exit_code, run.stdout) == (0, CODE)
    assert [note.split(" was ")[0] for note in run.notes] == ["Its code", "Its output"][when:]
    assert len(caplog.records) == len(run.notes)
    assert "canary" not in caplog.text + str(run.notes)
    assert ("the disk is full" in run.notes[0]) == isinstance(error, StoreUnavailable)
    body = world.engine.bodies.read(ANN, run.execution_id)
    assert states(body)["stdout"] == "missing"
    assert body.parts[BodyKind.STDOUT].detail == "it could not be captured when it ran"
    assert world.story(run.sandbox_id)[-2:] == ["ExecutionStarted", "ExecutionFinished"]


def test_an_engine_that_keeps_nothing_says_so(world: World, captured: Execution) -> None:
    bare = world.worker("bare", keeping=None)
    (note,) = bare.run(ANN, "box", code="2").notes
    assert note.startswith("Nothing was captured")
    for act in (lambda: bare.bodies, lambda: bare.create(ANN, "other", capture=True)):
        with world.nothing_recorded(), pytest.raises(ConfigurationError, match="keeps neither"):
            act()
    bare.create(ANN, "plain")
    bare.reconcile(ADMIN)


class Killed(BaseException):
    """The process ends here."""


def test_killed_while_the_output_is_kept_the_outcome_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    box = world.engine.create(ANN, "box", capture=True)
    break_put(world, monkeypatch, Killed(), when=1)
    with pytest.raises(Killed):
        world.engine.run(ANN, "box", code=CODE)
    monkeypatch.undo()
    assert world.story(box.sandbox_id)[-1] == "ExecutionFinished"
    world.kill("worker-1")
    heir = world.worker("heir")
    heir.reconcile(ADMIN)
    assert world.story(box.sandbox_id)[-1] == "ExecutionFinished"
    assert heir.run(ANN, "box", code="2").notes == ()


def test_killed_while_the_code_is_kept_the_run_is_lost_and_never_ran(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = world.engine.create(ANN, "box", capture=True)
    break_put(world, monkeypatch, Killed())
    with pytest.raises(Killed):
        world.engine.run(ANN, "box", code=CODE)
    monkeypatch.undo()
    world.kill("worker-1")
    heir = world.worker("heir")
    heir.reconcile(ADMIN)
    assert world.story(box.sandbox_id)[-2:] == ["ExecutionStarted", "ExecutionLost"]
    run = world.events(box.sandbox_id)[-1].event
    assert isinstance(run, ev.ExecutionLost)
    details = {part.detail for kind, part in heir.bodies.read(ANN, run.execution_id).parts.items() if kind != "code"}
    assert details == {"nobody knows how the run ended"}
    assert heir.run(ANN, "box", code="2").notes == ()


def test_a_run_in_a_sandbox_that_does_not_capture_asks_the_body_store_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.engine.create(ANN, "box")
    for name in ("key", "add_key", "put", "of", "stock"):
        monkeypatch.setattr(world.store.bodies, name, None)
    assert world.engine.run(ANN, "box", code=CODE).notes == ()


def test_without_a_key_no_sandbox_is_made_to_capture(world: World) -> None:
    engine = world.worker("keyless", settings={"capture_key": "canary-not-a-key"})
    with world.nothing_recorded(), pytest.raises(ConfigurationError) as caught:
        engine.create(ANN, "box", capture=True)
    assert "canary" not in caught.value.message + caught.value.hint
    assert engine.create(ANN, "plain").status is SandboxState.ACTIVE


# --- who may read ----------------------------------------------------------------------------------------------------
def test_the_owner_and_the_tenants_admins_read(world: World, captured: Execution) -> None:
    for reader in (ANN, ADMIN):
        body = world.engine.bodies.read(reader, captured.execution_id)
        assert (body.intact, data(body, BodyKind.CODE)) == (True, CODE.encode())


def test_anybody_else_is_told_what_an_unknown_one_answers(world: World, captured: Execution) -> None:
    for stranger in (BOB, STRANGER_ADMIN, Principal(user_id="ann", tenant_id="other")):
        told_the_same(world, captured, stranger)


def told_the_same(world: World, captured: Execution, stranger: Principal) -> None:
    with pytest.raises(NotFound) as theirs:
        world.engine.bodies.read(stranger, captured.execution_id)
    with pytest.raises(NotFound) as unknown:
        world.engine.bodies.read(stranger, "ex_" + "0" * 32)
    assert theirs.value.message.replace(captured.execution_id, "ex_" + "0" * 32) == unknown.value.message
    assert (type(theirs.value), theirs.value.hint) == (type(unknown.value), unknown.value.hint)
    story = world.story(captured.sandbox_id)
    with pytest.raises(SandboxNotFound) as refused:
        world.engine.bodies.erase(stranger, captured.sandbox_id)
    with pytest.raises(SandboxNotFound) as nobodys:
        world.engine.bodies.erase(stranger, "sb_" + "0" * 32)
    assert world.story(captured.sandbox_id) == story
    log = [e for e in world.store.read(0, 1000) if isinstance(e.event, ev.CommandRefused)][-4:]
    assert {(e.actor, e.tenant_id) for e in log} == {(stranger.actor, stranger.tenant_id)}
    assert [e.event.command for e in log] == ["read_body"] * 2 + ["erase"] * 2
    assert [e.event.reference for e in log[:2]] == [captured.execution_id, "ex_" + "0" * 32]
    assert refused.value.message.replace(captured.sandbox_id, "sb_" + "0" * 32) == nobodys.value.message
    assert world.engine.bodies.read(ANN, captured.execution_id).intact


def test_what_is_no_id_is_unknown(world: World, captured: Execution) -> None:
    for odd in ("", "ex_1", "x" * 5000, "ex_\x1b[31m", "é", "ex_\0", "\udcff", "'; DROP TABLE bodies; --"):
        with pytest.raises(NotFound) as caught:
            world.engine.bodies.read(ANN, odd)
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 100


# --- what is not what it was -----------------------------------------------------------------------------------------
def replaced(world: World, captured: Execution, kind: BodyKind, change: Callable[[SealedBody], bytes]) -> Body:
    """Read after somebody with access to the database has changed one body."""
    bodies = world.store.bodies
    right = bodies.of

    def of(*question: str) -> list[SealedBody]:
        from dataclasses import replace

        return [replace(b, sealed=change(b)) if b.kind is kind else b for b in right(*question)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "of", of)
        return world.engine.bodies.read(ANN, captured.execution_id)


def test_a_changed_body_does_not_open(world: World, captured: Execution) -> None:
    changes: list[Callable[[SealedBody], bytes]] = [
        lambda b: b.sealed[:-1] + bytes([b.sealed[-1] ^ 1]),
        lambda b: bytes([b.sealed[0] ^ 1]) + b.sealed[1:],
        lambda b: b.sealed[:20],
        lambda b: b"",
        lambda b: b.sealed + b"\0",
    ]
    for change in changes:
        body = replaced(world, captured, BodyKind.CODE, change)
        assert (states(body)["code"], states(body)["stdout"], body.intact) == ("damaged", "verified", False)
        assert data(body, BodyKind.CODE) is None


def test_a_body_does_not_open_in_anothers_place(world: World, captured: Execution) -> None:
    later = world.engine.run(ANN, "box", code="2")
    bodies = {b.kind: b for b in world.store.bodies.of(later.sandbox_id, later.execution_id, "default")}
    for kind in (BodyKind.CODE, BodyKind.STDOUT):
        body = replaced(world, captured, BodyKind.CODE, lambda _, kind=kind: bodies[kind].sealed)  # type: ignore[misc]
        assert states(body)["code"] == "damaged"


def test_a_body_that_was_sealed_anew_is_not_what_the_log_says(world: World, captured: Execution) -> None:
    """Whoever has the master key can seal anything; the digest in the log finds it."""
    keyring = world.engine.bodies._keyring
    key = keyring.key(captured.sandbox_id, "default")
    about = keyring.about(captured.sandbox_id, captured.execution_id, BodyKind.STDOUT)
    body = replaced(world, captured, BodyKind.STDOUT, lambda _: key.seal(b"nothing of the kind", about))
    part = body.parts[BodyKind.STDOUT]
    assert (part.state, part.data, body.intact) == (PartState.DIFFERS, b"nothing of the kind", False)
    assert part.sha256 is not None
    assert part.sha256 in part.detail


def test_under_another_master_key_it_says_which_one_is_missing(world: World, captured: Execution) -> None:
    first = (world.folder / "keys" / "capture.key").read_text().strip()
    second = base64.b64encode(os.urandom(32)).decode()
    other = world.worker("other", settings={"capture_key": second})
    with pytest.raises(ConfigurationError, match=MasterKeys.from_text(first, "").name):
        other.bodies.read(ANN, captured.execution_id)
    # A run there goes on, and says that it was not captured.
    assert [note[:28] for note in other.run(ANN, "box", code="2").notes] == [
        "Its code was not captured: T",
        "Its output was not captured:",
    ]
    both = world.worker("both", settings={"capture_key": f"{second} {first}"})
    assert both.bodies.read(ANN, captured.execution_id).intact
    both.create(ANN, "newer", capture=True)
    newer = both.run(ANN, "newer", code="3")
    assert other.bodies.read(ANN, newer.execution_id).intact
    with pytest.raises(ConfigurationError):
        world.engine.bodies.read(ANN, newer.execution_id)


# --- erasing ---------------------------------------------------------------------------------------------------------
def test_the_log_says_who_erased_what_and_when(world: World, captured: Execution) -> None:
    world.engine.run(ANN, "box", code="2")
    done = world.engine.bodies.erase(ADMIN, captured.sandbox_id)
    last = world.events(captured.sandbox_id)[-1]
    assert last.event == ev.BodiesErased(reason=ErasureReason.USER, executions=2)
    assert (last.actor, last.command, last.position) == ("user:root", "erase", done.position)
    assert (done.sandbox_id, done.executions) == (captured.sandbox_id, 2)
    stock = world.engine.bodies.stock()
    assert (stock.executions, stock.size, stock.keys) == (0, 0, 0)
    part = world.engine.bodies.read(ANN, captured.execution_id).parts[BodyKind.CODE]
    assert (part.state, part.data) == (PartState.MISSING, None)
    assert part.detail.startswith(f"it was erased by user:root at #{done.position}, ")
    assert part.sha256 is not None


def test_what_is_erased_is_gone_from_the_files_while_they_are_in_use(world: World, captured: Execution) -> None:
    """On Postgres that is the server's to do: this is of the embedded store."""
    files = (world.folder / "nexus.db", world.folder / "nexus.db-wal")
    key = world.store.bodies.key(captured.sandbox_id, "default").wrapped
    bodies = [body.sealed for body in world.store.bodies.of(captured.sandbox_id, captured.execution_id, "default")]

    def found() -> list[bool]:
        there = b"".join(file.read_bytes() for file in files)
        return [secret in there for secret in (key, *bodies)]

    assert found() == [True] * 4
    world.engine.bodies.erase(ANN, "box")
    assert found() == [False] * 4


def test_erasing_again_changes_nothing(world: World, captured: Execution) -> None:
    world.engine.bodies.erase(ANN, "box")
    with world.nothing_recorded():
        done = world.engine.bodies.erase(ANN, "box")
    assert (done.executions, done.position) == (0, None)


@pytest.mark.parametrize("act", ["pause", "stop"])
def test_it_is_erased_in_whatever_state(world: World, captured: Execution, act: str) -> None:
    getattr(world.engine, act)(ANN, "box")
    before = world.engine.status(ANN, captured.sandbox_id)
    world.engine.bodies.erase(ANN, captured.sandbox_id)
    after = world.engine.status(ANN, captured.sandbox_id)
    assert (after.status, after.expires_at, after.remaining_seconds) == (
        before.status,
        before.expires_at,
        before.remaining_seconds,
    )
    assert len(erasures(world, captured.sandbox_id)) == 1


def test_no_provider_is_needed(world: World, captured: Execution) -> None:
    world.engine.stop(ANN, "box")
    providers = world.engine.providers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "get", None)
        assert world.engine.bodies.read(ANN, captured.execution_id).intact
        assert world.engine.bodies.erase(ANN, captured.sandbox_id).executions == 1


def test_other_sandboxes_keep_theirs(world: World, captured: Execution) -> None:
    world.engine.create(ANN, "other", capture=True)
    kept = world.engine.run(ANN, "other", code="2")
    world.engine.bodies.erase(ANN, "box")
    assert world.engine.bodies.read(ANN, kept.execution_id).intact


def test_what_runs_later_is_captured_under_a_new_key(world: World, captured: Execution) -> None:
    elsewhere = world.worker("elsewhere")
    assert elsewhere.run(ANN, "box", code="2").notes == ()  # it knows the old key by now
    world.engine.bodies.erase(ANN, "box")
    for engine in (elsewhere, world.engine):
        run = engine.run(ANN, "box", code="3")
        assert run.notes == ()
        assert world.engine.bodies.read(ANN, run.execution_id).intact
    assert world.engine.bodies.stock().executions == 2


def test_a_run_in_progress_is_erased_with_the_rest(world: World) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waits(run: FakeRun) -> Outcome:
        begun.set()
        assert go_on.wait(30)
        return Outcome(stdout=b"late")

    slow = world.worker("slow", fake={"behaviour": waits})
    slow.create(ANN, "box", capture=True)
    found: list[Execution] = []
    thread = threading.Thread(target=lambda: found.append(slow.run(ANN, "box", code=CODE)))
    thread.start()
    assert begun.wait(30)
    assert world.engine.bodies.erase(ANN, "box").executions == 1
    go_on.set()
    thread.join(30)
    (run,) = found
    assert run.stdout == "late"
    assert run.notes == ("Its output was not captured: what was captured in this sandbox was erased meanwhile",)
    assert world.engine.bodies.stock().keys == 0
    assert {part.detail[:13] for part in world.engine.bodies.read(ANN, run.execution_id).parts.values()} == {
        "it was erased"
    }


def test_of_many_who_erase_at_once_one_says_so(world: World, captured: Execution) -> None:
    done: list[int | None] = []

    def erase(engine: Engine) -> None:
        done.append(engine.bodies.erase(ANN, "box").position)

    threads = [threading.Thread(target=erase, args=(world.worker(f"eraser-{n}"),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(position is None for position in done) == [False, True, True, True]
    assert len(erasures(world, captured.sandbox_id)) == 1


def test_the_chain_is_as_intact_as_before(
    world: World, captured: Execution, open_reading: Callable[[], Reading]
) -> None:
    def verdict() -> Verdict:
        with closing(open_reading()) as reading:
            return verify(LogEvidence(reading))

    Sealer(world.store).catch_up()
    before = verdict()
    world.engine.bodies.erase(ANN, "box")
    unsealed = verdict()
    Sealer(world.store).catch_up()
    after = verdict()
    assert (before.intact, unsealed.intact, after.intact) == (True, True, True)
    assert (unsealed.events, unsealed.unsealed) == (before.events + 1, 1)
    assert (after.events, after.unsealed) == (before.events + 1, 0)


# --- retention -------------------------------------------------------------------------------------------------------
def test_what_was_kept_long_enough_goes_with_the_next_reconcile(world: World, captured: Execution) -> None:
    world.pass_time(days=29)
    world.engine.bodies.expire()
    assert world.engine.bodies.read(ANN, captured.execution_id).intact
    world.pass_time(days=2)
    report = world.engine.reconcile(ADMIN)
    assert (report.bodies_erased, report.problems) == ([captured.sandbox_id], [])
    (erased,) = erasures(world, captured.sandbox_id)
    assert (erased.reason, erased.executions) == (ErasureReason.RETENTION, 1)
    assert erased.kept_before is not None
    assert world.engine.bodies.stock().executions == 0
    detail = world.engine.bodies.read(ANN, captured.execution_id).parts[BodyKind.CODE].detail
    assert detail.startswith("it was erased by system:retention at #")
    assert world.engine.reconcile(ADMIN).bodies_erased == []
    assert len(erasures(world, captured.sandbox_id)) == 1


def test_younger_runs_and_their_key_stay(world: World) -> None:
    world.engine.create(ANN, "box", capture=True, ttl_minutes=1440)
    old = world.engine.run(ANN, "box", code="1")
    world.pass_time(hours=20)
    young = world.engine.run(ANN, "box", code="2")
    daily = world.worker("daily", settings={"capture_days": 1})
    world.pass_time(hours=10)
    assert daily.bodies.expire() == [old.sandbox_id]
    assert states(daily.bodies.read(ANN, old.execution_id))["code"] == "missing"
    assert daily.bodies.read(ANN, young.execution_id).intact
    assert (world.engine.bodies.stock().executions, world.engine.bodies.stock().keys) == (1, 1)


def test_the_last_of_a_stopped_sandbox_take_the_key_with_them(world: World, captured: Execution) -> None:
    world.engine.stop(ANN, "box")
    world.pass_time(days=31)
    assert world.engine.bodies.expire() == [captured.sandbox_id]
    assert world.engine.bodies.stock().keys == 0


def test_many_go_in_portions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.engine.bodies._BATCH", 2)
    for name in ("one", "two"):
        world.engine.create(ANN, name, capture=True)
        for _ in range(3):
            world.engine.run(ANN, name, code="1")
    world.pass_time(days=31)
    assert len(world.engine.bodies.expire()) == 2
    assert world.engine.bodies.stock().executions == 0


def test_one_that_cannot_be_erased_keeps_no_other(world: World, captured: Execution) -> None:
    world.engine.create(BOB, "box", capture=True)
    other = world.engine.run(BOB, "box", code="1")
    world.pass_time(days=31)
    streams, right = world.engine.streams, world.engine.streams.execute

    def execute(sandbox_id: str, *arguments: Any, **more: Any) -> Any:
        if sandbox_id == captured.sandbox_id:
            raise StoreUnavailable("the disk is full")
        return right(sandbox_id, *arguments, **more)

    problems: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "execute", execute)
        assert world.engine.bodies.expire(problems) == [other.sandbox_id]
    assert problems == [f"bodies of {captured.sandbox_id}: the disk is full"]
    assert world.engine.bodies.expire() == [captured.sandbox_id]


def test_kept_until_they_are_erased(world: World, captured: Execution) -> None:
    for_ever = world.worker("for-ever", settings={"capture_days": 0})
    world.pass_time(days=3000)
    assert for_ever.bodies.expire() == []
    assert for_ever.bodies.read(ANN, captured.execution_id).intact
