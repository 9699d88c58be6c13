"""What every event is: an immutable, versioned value. Which events there are is said in `nexus.domain.events`."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]


class Event(BaseModel):
    """Base of all events. Times are aware and UTC, durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    TOPIC: ClassVar[str]
    VERSION: ClassVar[int] = 1
