"""What an operator can do about an aggregate that a read model left alone: look, try again, pass over the event.

Nothing stops meanwhile: whoever follows the log goes on, and a sandbox that is let go is at once where the others are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nexus.domain.errors import Conflict, InvalidInput, NexusError, NotFound
from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore, RowWrite
from nexus.domain.sandbox import stream_id
from nexus.domain.validation import shown
from nexus.domain.values import Principal, to_text
from nexus.projections.catalog import Projection, is_following, key
from nexus.projections.held import quarantined, skipped
from nexus.projections.replay import Poison, Replay, coalesced, replay
from nexus.projections.tables import SKIPPED

_PAGE: Final = 1000
_ATTEMPTS: Final = 50
"""How often a page that another follower wrote in between makes us begin anew."""


@dataclass(frozen=True, slots=True)
class Held:
    """An aggregate in quarantine, with the event that it is there for."""

    projection: str
    poison: Poison
    event: Envelope | None
    """None where the log does not hold it any more."""
    payload: str
    """As it is stored."""
    waiting: int
    """Events of the aggregate that are not in the read model: the poison and what follows it."""


def inspect(store: EventStore, projection: Projection) -> list[Held]:
    """Every aggregate that this read model leaves alone."""
    return [_held(store, projection, poison) for poison in quarantined(store.views, projection)]


def _held(store: EventStore, projection: Projection, poison: Poison) -> Held:
    where = poison.position
    found, raw = store.read(where - 1, 1, upto=where), store.raw(where - 1, 1, upto=where)
    (counted,) = store.views.query(
        "SELECT count(*) AS events FROM events WHERE originator_id = :stream AND position >= :position",
        {"stream": poison.originator_id, "position": where},
    )
    payload = bytes(raw[0][_STATE]).decode(errors="replace") if raw else ""
    return Held(projection.name, poison, found[0] if found else None, payload, counted["events"])


_STATE: Final = 6
"""The payload's place in a raw event."""


def retry(store: EventStore, projection: Projection, reference: str) -> Poison | None:
    """Apply what was left out of this aggregate, up to where the read model is. None: it is out of quarantine.

    `reference` is a stream or a sandbox id. Otherwise returns what it tripped over now. Raises `NotFound` when it is
    not in quarantine.
    """
    return _again(store, projection, reference, None)


def pass_over(store: EventStore, projection: Projection, reference: str, principal: Principal) -> Poison | None:
    """Pass over the event that the aggregate is in quarantine for, and apply what follows. Otherwise like `retry`.

    Recorded with who did it, and held until the read model is rebuilt. Raises `InvalidInput` for one that is made of
    folded states: a state with a gap is none.
    """
    if not is_following(projection):
        raise InvalidInput(
            f"{projection.name} holds states, and a state with a gap is none",
            hint="Upgrade Nexus to a version that reads the event, then `nexus projections retry`.",
            field="projection",
        )
    return _again(store, projection, reference, principal)


def _again(store: EventStore, projection: Projection, reference: str, skipping: Principal | None) -> Poison | None:
    stream = stream_id(reference) if reference.startswith("sb_") else reference
    views = store.views
    for _ in range(_ATTEMPTS):
        position = views.position(key(projection))
        poison = next((one for one in quarantined(views, projection) if one.originator_id == stream), None)
        if poison is None:
            raise NotFound(
                f"{projection.name} does not leave {shown(reference)} alone",
                hint="`nexus projections quarantine` shows what it leaves alone.",
            )
        passed = skipped(views, projection.name)
        mark: list[RowWrite] = []
        if skipping is not None:
            passed = passed | {poison.position}
            mark = [_skip_row(projection, poison, skipping, to_text(store.now()))]
        events = list(_events(store, projection, poison, position))
        again = replay(projection, store, (), passed)
        done, left = _apply(store, projection, again, events, position, poison, mark)
        if done:
            return left
    raise Conflict(f"{projection.name} never stood still", hint="Try again when fewer events come.")


def _skip_row(projection: Projection, poison: Poison, by: Principal, at: str) -> RowWrite:
    row = {"originator_id": poison.originator_id, "topic": poison.topic, "error": poison.error, "actor": by.actor}
    return RowWrite(SKIPPED.name, {"projection": projection.name, "position": poison.position}, {**row, "at": at})


def _events(store: EventStore, projection: Projection, poison: Poison, position: int | None) -> Iterator[Envelope]:
    """What a read model lacks of the aggregate. One of states is folded from the beginning, up to the log's end."""
    after = poison.position - 1 if is_following(projection) else 0
    upto = position if is_following(projection) else None
    while page := store.read(after, _PAGE, upto=upto):
        yield from (one for one in page if one.originator_id == poison.originator_id)
        after = page[-1].position or 0


def _apply(
    store: EventStore,
    projection: Projection,
    again: Replay,
    events: Sequence[Envelope],
    position: int | None,
    poison: Poison,
    mark: Sequence[RowWrite],
) -> tuple[bool, Poison | None]:
    """Whether it was written, and what is in the way now."""
    gone = poison.gone(key(projection))

    def write(rows: Sequence[RowWrite], left: Poison | None) -> bool:
        last = gone if left is None else left.row(key(projection))
        return store.views.advance(key(projection), position, position or 0, [*rows, *mark, last])

    rows = coalesced(again.rows(events))
    left = again.poisoned.get(poison.originator_id)
    try:
        return write(rows, left), left
    except NexusError:
        raise
    except Exception as error:  # noqa: BLE001 - a value that no column takes: one of these events makes it
        culprit = _culprit(events, poison, error)
        return write((), culprit), culprit


def _culprit(events: Sequence[Envelope], poison: Poison, error: Exception) -> Poison:
    """The aggregate stays where it was: at the event that it was put aside for."""
    first = next((one for one in events if one.position == poison.position), None)
    return Poison.of(first, error) if first is not None else poison
