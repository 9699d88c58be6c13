"""Values of the fake cloud: its resources, its faults, and what it remembers of calls and executions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from nexus.domain import errors
from nexus.domain.errors import ProviderError
from nexus.domain.provider import Condition

When = Literal["before", "half", "after"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. Plain data, so that it can be set in one process and met in another.

    `when` says how far the call gets: `before` any effect; `half` way (`ensure` leaves a half-made resource, `pause`
    stops after `save`, before anything is destroyed); or `after` the whole effect, so that only the answer is lost.
    """

    call: str
    """Name of the port's method, or `*`."""
    error: str = ""
    """Name of the class in `nexus.domain.errors`; "" raises nothing (for a mere delay)."""
    when: When = "before"
    times: int | None = 1
    """How many calls it hits; None: until `heal`."""
    skip: int = 0
    """Matching calls that pass unharmed first."""
    delay: float = 0.0
    """Seconds of the cloud's clock that the call takes longer."""
    sandbox_id: str | None = None
    """Hit calls for this sandbox only."""
    worker: str | None = None
    """Hit calls of this FakeProvider instance only."""
    kill: bool = False
    """End this very process with SIGKILL instead of raising: needs a file-backed cloud to be of any use."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further attributes of the error, such as `retry_after`."""

    def exception(self) -> ProviderError | None:
        if not self.error:
            return None
        kind = getattr(errors, self.error)
        if not issubclass(kind, ProviderError):
            raise TypeError(f"{self.error} is not a ProviderError: the port raises nothing else")
        error: ProviderError = kind(f"scripted fault: {self.call} {self.when}", **self.facts)
        return error


@dataclass(frozen=True, slots=True)
class FakeResource:
    """One sandbox, or the snapshot of one, as the fake cloud holds it."""

    id: str
    sandbox_id: str
    installation: str
    generation: int
    condition: Condition
    created_at: datetime
    expires_at: datetime | None = None
    """When it ends by itself; None for providers without a TTL of their own."""
    incarnation: str = "1"
    half_made: bool = False
    snapshot: bool = False
    name: str = ""
    network: str = "full"
    template: str = "default"
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    member_id: str = ""
    """Of the warm pool as whose member it was made; it has no `sandbox_id` until it is taken."""


@dataclass(frozen=True, slots=True)
class ArmedFault:
    """A fault that was injected, and how often it was met."""

    number: int
    fault: Fault
    met: int = 0

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.met >= self.fault.skip + self.fault.times


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call of the port. `answer` is None while it runs, and for ever when the caller died in it."""

    number: int
    call: str
    worker: str
    process: int
    at: datetime
    sandbox_id: str = ""
    resource_id: str = ""
    execution_id: str = ""
    answer: str | None = None
    """`ok`, or the class name of what was raised."""


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One run that really began. Two with one `execution_id` break the port's at-most-once promise."""

    number: int
    execution_id: str
    sandbox_id: str
    resource_id: str
    worker: str
    process: int
    started_at: datetime
    ended_at: datetime | None = None
    end: str = ""
    """`finished`, `timed out`, `cancelled`, `lost` (its sandbox went away) or `interrupted`."""


Change = tuple[str, Any]
"""Kind and value: `resource`, `removed`, `call`, `execution`, `fault`, `healed`, `cancelled`."""

_KINDS: dict[str, type] = {
    "resource": FakeResource,
    "call": CallRecord,
    "execution": ExecutionRecord,
    "fault": ArmedFault,
}
_TIMES = ("created_at", "expires_at", "at", "started_at", "ended_at")


def encode(change: Change) -> bytes:
    """A change as one line of JSON."""
    kind, value = change
    body = asdict(value) if kind in _KINDS else value
    text = json.dumps([kind, body], separators=(",", ":"), default=datetime.isoformat)
    return text.encode() + b"\n"


def decode(line: bytes) -> Change:
    """The reverse of `encode`."""
    kind, body = json.loads(line)
    if kind not in _KINDS:
        return kind, body
    for name in _TIMES:
        if body.get(name) is not None:
            body[name] = datetime.fromisoformat(body[name])
    if kind == "fault":
        body["fault"] = Fault(**body["fault"])
    return kind, _KINDS[kind](**body)
