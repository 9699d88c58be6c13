"""Usage: active and paused time, runs and their outcomes, and what that costs by the user's own prices.

`usage` is pure: a function of envelopes, a period, and a price table. `report` asks a log for those of a principal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from nexus.domain.errors import InvalidInput, NotAllowed
from nexus.domain.events import Envelope
from nexus.domain.ports import EventStore
from nexus.domain.validation import shown
from nexus.domain.values import Principal, SandboxState, system_principal
from nexus.engine.eventlog import EventLog
from nexus.engine.history import NOW, Moment
from nexus.engine.lives import Life, RunOutcome, lives

BY: Final = ("provider", "user", "day", "sandbox", "label:KEY")
_HOUR: Final = 3600.0
_LABEL: Final = "label:"
_FREE: Final[Mapping[str, float]] = {}

Key = str | None | tuple[str | None, ...]
"""What a group is told by: one thing's value (None, for sandboxes without that label), or those of several in order."""


@dataclass(slots=True)
class Usage:
    """What one group used. Seconds are those inside the period; a run counts where it began."""

    sandboxes: set[str] = field(default_factory=set)
    active: dict[str, float] = field(default_factory=dict)
    """Provider → active seconds."""
    paused: dict[str, float] = field(default_factory=dict)
    """Provider → paused seconds."""
    outcomes: dict[RunOutcome, int] = field(default_factory=lambda: dict.fromkeys(RunOutcome, 0))

    @property
    def active_seconds(self) -> float:
        return sum(self.active.values())

    @property
    def paused_seconds(self) -> float:
        return sum(self.paused.values())

    @property
    def runs(self) -> int:
        return sum(self.outcomes.values())

    def cost(self, prices: Mapping[str, float], paused: Mapping[str, float] = _FREE) -> float | None:
        """Prices per hour times hours, active and `paused`, over the providers that have a price for active ones; None
        when none of those that were active has. A paused hour without a price costs nothing."""
        priced = [seconds / _HOUR * prices[name] for name, seconds in self.active.items() if name in prices]
        if self.active and not priced:
            return None
        return sum(priced) + sum(seconds / _HOUR * paused.get(name, 0.0) for name, seconds in self.paused.items())

    def unpriced(self, prices: Mapping[str, float]) -> list[str]:
        """Providers whose active time the cost leaves out, because they have no price."""
        return sorted(name for name in self.active if name not in prices)

    def to_dict(self, prices: Mapping[str, float], paused: Mapping[str, float] = _FREE) -> dict[str, Any]:
        """As plain JSON values; seconds to the microsecond, the cost to the sixth decimal."""
        cost = self.cost(prices, paused)
        return {
            "sandboxes": len(self.sandboxes),
            "active_seconds": round(self.active_seconds, 6),
            "paused_seconds": round(self.paused_seconds, 6),
            "runs": self.runs,
            **{outcome.value: count for outcome, count in self.outcomes.items()},
            "providers": {
                name: {
                    "active_seconds": round(self.active.get(name, 0.0), 6),
                    "paused_seconds": round(self.paused.get(name, 0.0), 6),
                    "cost": self._cost_at(name, prices, paused),
                }
                for name in sorted({*self.active, *self.paused})
            },
            "cost": None if cost is None else round(cost, 6),
            "unpriced": self.unpriced(prices),
        }

    def _cost_at(self, name: str, prices: Mapping[str, float], paused: Mapping[str, float]) -> float | None:
        at = {name: self.active[name]} if name in self.active else {}
        cost = Usage(active=at, paused={name: self.paused.get(name, 0.0)}).cost(prices, paused)
        return None if cost is None else round(cost, 6)


@dataclass(frozen=True, slots=True)
class Report:
    """Usage by group, sorted by key (None comes last), and of all together."""

    groups: Mapping[Key, Usage]
    total: Usage
    unreadable: tuple[str, ...]
    """Sandboxes with an event that this version cannot read: from then on they are not counted."""


def usage(
    envelopes: Iterable[Envelope],
    *,
    by: str | Sequence[str],
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    of: Callable[[Life], bool] = lambda life: True,
) -> Report:
    """What was used between `since` and `until` (outside it), at the latest up to `now` (inside it).

    The envelopes are those of whole lives: what happened before the period decides the state in which it begins.
    Days are those of UTC. Groups that used nothing in the period are not there. `by` is one of `BY`, or several, and
    then each key is a tuple. Raises `InvalidInput` for any other.
    """
    key = _key(by) if isinstance(by, str) else _keys(by)
    daily = "day" in ((by,) if isinstance(by, str) else by)
    end = now if until is None else min(until, now)
    begin = since or datetime.min.replace(tzinfo=UTC)
    groups: dict[Key, Usage] = {}
    total = Usage()
    told = [life for life in lives(envelopes) if of(life)]
    for life in told:
        for stretch in life.stretches:
            if stretch.state is SandboxState.CREATING:
                continue
            for start, stop in _cut(max(stretch.start, begin), min(stretch.end or end, end), daily):
                seconds = (stop - start).total_seconds()
                for group in (groups.setdefault(key(life, start), Usage()), total):
                    group.sandboxes.add(life.sandbox_id)
                    if stretch.state is SandboxState.ACTIVE:
                        group.active[life.provider] = group.active.get(life.provider, 0.0) + seconds
                    else:
                        group.paused[life.provider] = group.paused.get(life.provider, 0.0) + seconds
        for run in life.runs.values():
            if begin <= run.start <= now and (until is None or run.start < until):
                for group in (groups.setdefault(key(life, run.start), Usage()), total):
                    group.sandboxes.add(life.sandbox_id)
                    group.outcomes[run.outcome] += 1
    ordered = sorted(groups.items(), key=lambda item: _order(item[0]))
    return Report(dict(ordered), total, tuple(life.sandbox_id for life in told if life.unreadable))


def report(
    log: EventLog,
    store: EventStore,
    principal: Principal,
    *,
    by: str | Sequence[str],
    since: datetime | None = None,
    until: datetime | None = None,
    moment: Moment = NOW,
    all_users: bool = False,
) -> Report:
    """Usage of the principal's sandboxes, straight from the log; `all_users` widens to the tenant, for its admins.

    As of a `moment` it is what would have been told then: nothing that was recorded later counts, and what had not
    ended counts up to that time. Raises `NotAllowed`, and what `usage` raises.
    """
    if all_users and not principal.is_admin:
        raise NotAllowed(f"{principal.actor} may not see other users' usage", actor=principal.actor)

    def mine(life: Life) -> bool:
        return life.tenant_id == principal.tenant_id and (all_users or life.user_id == principal.user_id)

    upto = store.head() if moment.position is None else min(moment.position, store.head())
    told = (envelope for envelope in log.each(principal, upto=upto) if moment.covers(envelope))
    return usage(told, by=by, now=_time_of(log, store, moment, upto), since=since, until=until, of=mine)


def _time_of(log: EventLog, store: EventStore, moment: Moment, upto: int) -> datetime:
    """When it was: that of a position is the time of the event that stands there, or of the last one before it."""
    now = store.now()
    if moment.position is not None:
        last = log.last(system_principal(), 1, upto=upto)
        return min(now, last[0].occurred_at) if last else now
    return now if moment.time is None else min(now, moment.time)


def _key(by: str) -> Callable[[Life, datetime], str | None]:
    known: dict[str, Callable[[Life, datetime], str | None]] = {
        "provider": lambda life, _at: life.provider,
        "user": lambda life, _at: life.user_id,
        "day": lambda _life, at: at.astimezone(UTC).date().isoformat(),
        "sandbox": lambda life, _at: life.sandbox_id,
    }
    if by in known:
        return known[by]
    label = by.removeprefix(_LABEL)
    if not label or label == by:
        raise InvalidInput(f"Usage cannot be told by {shown(by)}", hint=f"Give one of {', '.join(BY)}.", field="by")
    return lambda life, _at: life.labels.get(label)


def _keys(by: Sequence[str]) -> Callable[[Life, datetime], tuple[str | None, ...]]:
    if not by or len(set(by)) != len(by):
        raise InvalidInput("Usage is told by one thing or several different ones", hint="Name each once.", field="by")
    keys = [_key(each) for each in by]
    return lambda life, at: tuple(key(life, at) for key in keys)


def _order(key: Key) -> list[tuple[bool, str]]:
    return [(part is None, part or "") for part in (key if isinstance(key, tuple) else (key,))]


def _cut(start: datetime, end: datetime, daily: bool) -> Iterator[tuple[datetime, datetime]]:
    """The time from start to end, whole or in pieces that lie within one day of UTC; nothing when it is empty."""
    while start < end:
        stop = end
        if daily:
            tomorrow = start.astimezone(UTC).date() + timedelta(days=1)
            stop = min(end, datetime.combine(tomorrow, time(), UTC))
        yield start, stop
        start = stop
