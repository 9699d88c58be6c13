"""The kinds of aggregate that inline read models are made from: which streams are theirs, and how these fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nexus.domain import pool, sandbox
from nexus.domain.values import SandboxState


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One kind. States have a `version` and are changed by `fold` in place."""

    owns: Callable[[str], bool]
    """Whether a stream is one of these."""
    key: str
    """The column of read models that holds the id."""
    stream: Callable[[str], str]
    """The stream of an id."""
    fold: Callable[..., Any]
    is_over: Callable[[Any], bool]
    """Whether hardly anything can follow: a replay need not keep the state at hand."""


AGGREGATES: Final = {
    "sandbox": Aggregate(
        owns=sandbox.is_sandbox_stream,
        key="sandbox_id",
        stream=sandbox.stream_id,
        fold=sandbox.fold,
        is_over=lambda state: state.state is SandboxState.STOPPED,
    ),
    "pool member": Aggregate(
        owns=pool.is_member_stream,
        key="member_id",
        stream=pool.stream_id,
        fold=pool.fold,
        is_over=lambda member: not member.occupies,
    ),
}
