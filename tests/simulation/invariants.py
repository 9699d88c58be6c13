"""What must hold after every schedule: I1 to I11. Each returns what is wrong, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from nexus.domain import errors, pool
from nexus.domain import events as ev
from nexus.domain import pool_events as pe
from nexus.domain.lifecycle import TABLE
from nexus.domain.pool import Member
from nexus.domain.refusals import is_refusal
from nexus.domain.sandbox import Sandbox, fold, sandbox_id_of, stream_id
from nexus.domain.values import MemberState, SandboxState
from nexus.engine.executions import Execution
from nexus.engine.views import view_of
from nexus.projections.pool import PoolQueries
from nexus.projections.queries import SandboxQueries
from nexus.projections.views import SandboxView
from tests.simulation.ports import OURS, STRANGERS
from tests.simulation.scheduler import Dead
from tests.simulation.world import PLAN, Call, World

_TRIGGERS: Final[dict[type[ev.Event], str]] = {
    ev.SandboxStarted: "start", ev.SandboxFailed: "fail", ev.ExecutionStarted: "run", ev.SandboxPaused: "pause",
    ev.SandboxResumed: "resume", ev.SandboxExtended: "extend", ev.SandboxStopped: "stop", ev.SandboxLost: "lose",
}  # fmt: skip
_ENDED = (ev.ExecutionFinished, ev.ExecutionTimedOut, ev.ExecutionLost)
_INTENTS: Final[dict[type[ev.Event], tuple[type[ev.Event], ...]]] = {
    ev.PauseRequested: (ev.SandboxPaused, ev.PauseFailed),
    ev.ResumeRequested: (ev.SandboxResumed, ev.ResumeFailed),
    ev.StopRequested: (ev.SandboxStopped,),
    ev.SandboxRequested: (ev.SandboxStarted, ev.SandboxFailed),
}
_REFUSALS = (
    errors.IllegalTransition, errors.SandboxBusy, errors.NameTaken, errors.SandboxNotFound, errors.InvalidInput,
    errors.IdempotencyMismatch, errors.ConcurrentModification,
)  # fmt: skip


GRACE: Final = timedelta(seconds=60)
"""The last reconcile itself takes time; what expires during it is the next one's."""


def states(world: World) -> dict[str, Sandbox]:
    found = {}
    for stream, envelopes in world.store.streams.items():
        sandbox_id = sandbox_id_of(stream)
        if sandbox_id is not None:
            state = fold(None, envelopes)
            assert state is not None
            found[sandbox_id] = state
    return found


def i1_resources_are_the_live_sandboxes(world: World) -> Iterator[str]:
    live = states(world)
    wanted: Counter[tuple[str | None, str]] = Counter()
    for state in live.values():
        if state.pending is not None or state.state is SandboxState.CREATING:
            yield f"{state.sandbox_id} is still {state.state} with {state.pending}"
        if state.state in (SandboxState.ACTIVE, SandboxState.PAUSED):
            wanted[(state.ref or {}).get("data", {}).get("id"), _condition(state)] += 1
    there = Counter(
        (r.id, r.condition)
        for r in world.resources.values()
        if r.installation == OURS and r.sandbox_id and (not r.snapshot or _is_current(live, r.sandbox_id, r.id))
    )
    if wanted != there:
        yield f"live sandboxes {dict(wanted)} but resources {dict(there)}"


def _condition(state: Sandbox) -> str:
    return "paused" if state.state is SandboxState.PAUSED else "running"


def _is_current(live: dict[str, Sandbox], sandbox_id: str, resource_id: str) -> bool:
    state = live.get(sandbox_id)
    return state is not None and state.state is not SandboxState.STOPPED and _ref_id(state) == resource_id


def _ref_id(state: Sandbox) -> str | None:
    return None if state.ref is None else str(state.ref["data"]["id"])


def i2_an_execution_runs_at_most_once(world: World) -> Iterator[str]:
    yield from (f"{run} ran {times} times" for run, times in Counter(world.executions).items() if times > 1)


def i3_one_terminal_outcome(world: World) -> Iterator[str]:
    for stream, envelopes in world.store.streams.items():
        ended = Counter(e.event.execution_id for e in envelopes if isinstance(e.event, _ENDED))
        begun = [e.event.execution_id for e in envelopes if isinstance(e.event, ev.ExecutionStarted)]
        yield from (f"{run} in {stream} has {ended[run]} outcomes" for run in begun if ended[run] != 1)
        yield from (f"{run} in {stream} ended without a beginning" for run in ended if run not in begun)
        open_intent: ev.Envelope | None = None
        for envelope in envelopes:
            kind = type(envelope.event)
            if kind in _INTENTS:
                if open_intent is not None and kind is not ev.StopRequested:
                    yield f"{kind.__name__} in {stream} while {open_intent.topic} was open"
                open_intent = envelope
            elif open_intent is not None and kind in (*_INTENTS[type(open_intent.event)], ev.SandboxLost):
                open_intent = None
        if open_intent is not None:
            yield f"{open_intent.topic} in {stream} has no outcome"


def i4_only_legal_transitions(world: World) -> Iterator[str]:
    for stream, envelopes in world.store.streams.items():
        if sandbox_id_of(stream) is None:
            continue
        state: Sandbox | None = None
        for envelope in envelopes:
            trigger = _TRIGGERS.get(type(envelope.event))
            before = state.state if state is not None else None
            if trigger is not None and before is not None and (trigger, before) not in TABLE:
                yield f"{stream}: {trigger} from {before}"
            state = fold(state, [envelope])


def i4_outcomes_are_fenced(world: World) -> Iterator[str]:
    """An outcome belongs to the last attempt that was given out before it."""
    for stream, envelopes in world.store.streams.items():
        last = 0
        for envelope in envelopes:
            attempt: int | None = getattr(envelope.event, "attempt", None)
            if attempt is None:
                continue
            intent = isinstance(envelope.event, (*_INTENTS, ev.OperationTakenOver))
            if attempt != last + intent:
                yield f"{envelope.topic} in {stream} belongs to attempt {attempt}; the last one was {last}"
            last = attempt


def stories_go_on_through_take_overs(world: World) -> Iterator[str]:
    """A take-over and an outcome are led to by what gave out the attempt that they carry on, in one story."""
    for stream, envelopes in world.store.streams.items():
        given: dict[int, ev.Envelope] = {}
        for envelope in envelopes:
            attempt: int | None = getattr(envelope.event, "attempt", None)
            if attempt is None:
                continue
            taken = isinstance(envelope.event, ev.OperationTakenOver)
            if taken or not isinstance(envelope.event, tuple(_INTENTS)):
                origin = given[attempt - taken]
                if (envelope.causation_id, envelope.correlation_id) != (origin.event_id, origin.correlation_id):
                    yield f"{envelope.topic} #{envelope.originator_version} in {stream} left the story of its intent"
            if taken or isinstance(envelope.event, tuple(_INTENTS)):
                given[attempt] = envelope


def i5_views_equal_a_replay(world: World) -> Iterator[str]:
    queries = SandboxQueries(world.store.views)
    for sandbox_id, state in states(world).items():
        if queries.get(sandbox_id) != view_of(state):
            yield f"the view of {sandbox_id} differs from its events"
    due = set(queries.live())
    alive = {key for key, state in states(world).items() if state.state is not SandboxState.STOPPED}
    if due != alive:
        yield f"due has {due ^ alive} too many or too few"


def i6_what_was_told_is_what_the_log_holds(world: World) -> Iterator[str]:
    by_agent: dict[str | None, list[ev.Envelope]] = {}
    for envelope in world.store.log:
        by_agent.setdefault(envelope.agent_id, []).append(envelope)
    for call in world.calls:
        mine = by_agent.get(call.agent, [])
        refused = [e.event for e in mine if isinstance(e.event, ev.CommandRefused)]
        if isinstance(call.error, _REFUSALS) and len(mine) > len(refused):
            yield f"{call.command} was refused ({call.error}) but recorded {[e.topic for e in mine]}"
        elif call.error is None and call.answer is not None:
            yield from _told(world, call)


def i11_a_refusal_is_recorded_and_nothing_else_is_called_one(world: World) -> Iterator[str]:
    """Once, in a stream of its own; missing only where the store would not take it."""
    by_agent: dict[str | None, list[ev.CommandRefused]] = {}
    for stream, envelopes in world.store.streams.items():
        if stream.startswith("refusal-"):
            (envelope,) = envelopes
            assert isinstance(envelope.event, ev.CommandRefused)
            by_agent.setdefault(envelope.agent_id, []).append(envelope.event)
        elif any(isinstance(envelope.event, ev.CommandRefused) for envelope in envelopes):
            yield f"{stream} holds a refusal"
    for call in world.calls:
        told = [event.error for event in by_agent.pop(call.agent, [])]
        error = call.error
        if (error is None and call.answer is None) or isinstance(error, Dead):
            continue  # the process was killed: nobody was told anything
        wanted = [error.code] if isinstance(error, errors.NexusError) and is_refusal(error) else []
        if told != wanted and not (told == [] and world.unreliable):
            yield f"{call.command} ended with {error!r}; the log says it was refused for {told}"
    if by_agent:
        yield f"nobody asked for what was refused: {by_agent}"


def _told(world: World, call: Call) -> Iterator[str]:
    if isinstance(call.answer, Execution):
        log = world.store.streams[stream_id(call.answer.sandbox_id)]
        finished = [e.event for e in log if isinstance(e.event, ev.ExecutionFinished)]
        if not any(e.execution_id == call.answer.execution_id for e in finished):
            yield f"a caller was told that {call.answer.execution_id} finished; the log does not know"
    elif isinstance(call.answer, SandboxView):
        past = fold(None, world.store.streams[stream_id(call.answer.sandbox_id)][: call.answer.version])
        if past is None or view_of(past) != call.answer:
            yield f"{call.command} answered with a state of {call.answer.sandbox_id} that never was"


def i7_nothing_outlives_its_deadline(world: World) -> Iterator[str]:
    now = world.store.now() - GRACE
    yield from (f"{key} is long expired" for key, state in states(world).items() if state.is_expired(now))


def i8_no_event_no_effect(world: World) -> Iterator[str]:
    for effect in world.effects:
        log = world.store.log[: effect.head]
        stream = stream_id(effect.sandbox_id)
        if effect.kind in ("ensure", "pause", "resume") and not any(e.originator_id == stream for e in log):
            yield f"{effect.kind} of {effect.sandbox_id} without an event"
        if effect.kind == "run" and not any(
            isinstance(e.event, ev.ExecutionStarted) and e.event.execution_id == effect.what for e in log
        ):
            yield f"run {effect.what} without an event"


def i9_nothing_live_is_destroyed(world: World) -> Iterator[str]:
    for effect in world.effects:
        if effect.kind not in ("destroy", "discard"):
            continue
        stream = stream_id(effect.sandbox_id)
        state = fold(None, [e for e in world.store.log[: effect.head] if e.originator_id == stream])
        if state is None or state.state in (SandboxState.STOPPED, SandboxState.CREATING) or state.pending is not None:
            continue
        if _ref_id(state) == effect.what:
            yield f"{effect.kind} of {effect.what} while {effect.sandbox_id} was {state.state}"


def i9_what_is_lost_was_gone(world: World) -> Iterator[str]:
    for stream, envelopes in world.store.streams.items():
        for number, envelope in enumerate(envelopes):
            if not isinstance(envelope.event, ev.SandboxLost):
                continue
            state = fold(None, envelopes[:number])
            gone = [
                effect
                for effect in world.effects
                if effect.kind in ("vanish", "destroy", "discard", "pause") and effect.head < (envelope.position or 0)
            ]
            if state is not None and not any(effect.what == _ref_id(state) for effect in gone):
                yield f"{stream} counts as lost although its resource was there"


def i10_strangers_are_untouched(world: World) -> Iterator[str]:
    strangers = [r for r in world.resources.values() if r.installation == STRANGERS]
    if [(r.id, r.condition) for r in strangers] != [("stranger", "running")]:
        yield "another installation's resource was touched"


def names_and_keys_mean_one_sandbox(world: World) -> Iterator[str]:
    """At no position do two live sandboxes of one user bear one name, and a key is claimed once."""
    live: dict[tuple[str, str, str], set[str]] = {}
    owners: dict[str, tuple[str, str, str]] = {}
    for envelope in world.store.log:
        event, sandbox_id = envelope.event, sandbox_id_of(envelope.originator_id) or ""
        if isinstance(event, ev.SandboxRequested):
            owners[sandbox_id] = (event.tenant_id, event.user_id, event.name)
            bearers = live.setdefault(owners[sandbox_id], set())
            bearers.add(sandbox_id)
            if len(bearers) > 1:
                yield f"{event.name} means {sorted(bearers)} at {envelope.position}"
        elif isinstance(event, ev.SandboxStopped | ev.SandboxFailed | ev.SandboxLost):
            live[owners[sandbox_id]].discard(sandbox_id)
    for stream, envelopes in world.store.streams.items():
        if stream.startswith("key-") and len(envelopes) > 1:
            yield f"{stream} was claimed {len(envelopes)} times"
    wanted: dict[tuple[str, str], set[str]] = {}
    for call in world.calls:
        if call.key is not None and isinstance(call.answer, SandboxView):
            wanted.setdefault((call.answer.user_id, call.key), set()).add(call.answer.sandbox_id)
    yield from (f"key {key} answered with {ids}" for key, ids in wanted.items() if len(ids) > 1)


def runs_are_not_interrupted_and_time_only_grows(world: World) -> Iterator[str]:
    """Expiry and pause wait for a run inside its time-out, and no event but a pause takes time to live away."""
    for stream, envelopes in world.store.streams.items():
        if sandbox_id_of(stream) is None:
            continue
        state: Sandbox | None = None
        for envelope in envelopes:
            event, at = envelope.event, envelope.occurred_at
            expires = state.expires_at if state is not None else None
            inside = state is not None and any(run.lease_until > at for run in state.executions.values())
            expiring = isinstance(event, ev.StopRequested) and event.reason == "expired"
            if inside and (expiring or isinstance(event, ev.PauseRequested)):
                yield f"{envelope.topic} in {stream} while a run was inside its time-out"
            if expiring and expires is not None and expires > at:
                yield f"{stream} expired before its time"
            state = fold(state, [envelope])
            if (
                state is not None
                and expires is not None
                and state.expires_at is not None
                and state.expires_at < expires
            ):
                yield f"{envelope.topic} in {stream} shortened the time to live"


def i6_a_time_out_is_recorded_as_one(world: World) -> Iterator[str]:
    recorded = {e.event.execution_id for e in world.store.log if isinstance(e.event, ev.ExecutionTimedOut)}
    for call in world.calls:
        if isinstance(call.error, errors.ExecutionTimedOut) and call.error.execution_id not in recorded:
            yield f"a caller was told of a time-out of {call.error.execution_id}; the log does not know"


def no_unexpected_errors(world: World) -> Iterator[str]:
    yield from world.scheduler.errors


_AFTER: Final[dict[type[ev.Event], tuple[type[ev.Event], ...]]] = {
    pe.PoolMemberReady: (pe.PoolMemberRequested,),
    pe.PoolMemberTaken: (pe.PoolMemberReady,),
    pe.PoolMemberRetired: (pe.PoolMemberRequested, pe.PoolMemberReady, pe.PoolMemberTaken),
    pe.PoolMemberRemoved: (pe.PoolMemberRetired,),
}


def members(world: World) -> dict[str, Member]:
    found = {}
    for stream, envelopes in world.store.streams.items():
        if pool.is_member_stream(stream):
            member = pool.fold(None, envelopes)
            assert member is not None
            found[member.member_id] = member
    return found


def the_pool_is_what_the_log_says(world: World) -> Iterator[str]:
    """I1, I5 and I8 for members of the warm pool."""
    found = members(world)
    ready = {key for key, member in found.items() if member.state is MemberState.READY}
    there = {r.member_id for r in world.resources.values() if r.member_id and not r.sandbox_id}
    if ready != there:
        yield f"members {ready} are ready but {there} are there"
    yield from (f"{key} is still {m.state}" for key, m in found.items() if m.occupies and key not in ready)
    if {view.member_id for view in PoolQueries(world.store.views).members()} != ready:
        yield "the view of the pool differs from its events"
    for effect in world.effects:
        if effect.kind not in ("prepare", "withdraw"):
            continue
        stream = pool.stream_id(effect.sandbox_id)
        past = pool.fold(None, [e for e in world.store.log[: effect.head] if e.originator_id == stream])
        if past is None or (effect.kind == "withdraw" and past.state in (MemberState.READY, MemberState.REQUESTED)):
            yield f"{effect.kind} of {effect.sandbox_id} while it was {past and past.state}"


def the_pool_is_bounded_and_given_away_once(world: World) -> Iterator[str]:
    before: dict[str, type[ev.Event]] = {}
    for envelope in world.store.log:
        kind = type(envelope.event)
        if kind in _AFTER and before.get(envelope.originator_id) not in _AFTER[kind]:
            yield f"{envelope.topic} in {envelope.originator_id} out of turn"
        before[envelope.originator_id] = kind
    waiting: set[str] = set()
    sandboxes: Counter[str] = Counter()
    for envelope in world.store.log:
        event, stream = envelope.event, envelope.originator_id
        if isinstance(event, pe.PoolMemberRequested):
            waiting.add(stream)
            if len(waiting) > PLAN.total:
                yield f"{len(waiting)} members at {envelope.position}"
        elif isinstance(event, pe.PoolMemberTaken | pe.PoolMemberRemoved):
            waiting.discard(stream)
        if isinstance(event, pe.PoolMemberTaken):
            sandboxes[event.sandbox_id] += 1
    yield from (f"{key} took {count} members" for key, count in sandboxes.items() if count > 1)


INVARIANTS: Final[tuple[Callable[[World], Iterator[str]], ...]] = (
    i1_resources_are_the_live_sandboxes,
    i2_an_execution_runs_at_most_once,
    i3_one_terminal_outcome,
    i4_only_legal_transitions,
    i4_outcomes_are_fenced,
    stories_go_on_through_take_overs,
    i5_views_equal_a_replay,
    i6_what_was_told_is_what_the_log_holds,
    i7_nothing_outlives_its_deadline,
    i8_no_event_no_effect,
    i9_nothing_live_is_destroyed,
    i9_what_is_lost_was_gone,
    i10_strangers_are_untouched,
    i11_a_refusal_is_recorded_and_nothing_else_is_called_one,
    i6_a_time_out_is_recorded_as_one,
    names_and_keys_mean_one_sandbox,
    runs_are_not_interrupted_and_time_only_grows,
    the_pool_is_what_the_log_says,
    the_pool_is_bounded_and_given_away_once,
    no_unexpected_errors,
)


def violations(world: World) -> list[str]:
    """Everything that is wrong, each with the invariant's name."""
    return [f"{check.__name__}: {what}" for check in INVARIANTS for what in check(world)]
