"""The lifecycle machine: the only place that knows which trigger leads where.

One `transitions` machine without a model is the definition. It is compiled once into a table, because triggering
through the machine costs microseconds and binding it to instances costs kilobytes each. Commands ask `target`;
replay never asks: an event leads to a fixed state, so that old history survives new rules.
"""

from __future__ import annotations

from typing import Final

from transitions import Machine

from nexus.domain.errors import IllegalTransition
from nexus.domain.values import SandboxState

_C, _A, _P, _S = (state.value for state in SandboxState)

EDGES: Final = (
    {"trigger": "start", "source": _C, "dest": _A},
    {"trigger": "fail", "source": _C, "dest": _S},
    {"trigger": "run", "source": _A, "dest": _A},
    {"trigger": "pause", "source": _A, "dest": _P},
    {"trigger": "resume", "source": _P, "dest": _A},
    {"trigger": "extend", "source": [_A, _P], "dest": "="},
    {"trigger": "stop", "source": [_C, _A, _P], "dest": _S},
    {"trigger": "lose", "source": [_C, _A, _P], "dest": _S},
)

MACHINE: Final = Machine(
    model=None,
    states=[state.value for state in SandboxState],
    transitions=list(EDGES),
    initial=_C,
    auto_transitions=False,
)

TABLE: Final[dict[tuple[str, SandboxState], SandboxState]] = {
    (trigger, SandboxState(edge.source)): SandboxState(edge.dest if edge.dest is not None else edge.source)
    for trigger, event in MACHINE.events.items()
    for edges in event.transitions.values()
    for edge in edges
}

_USER_TRIGGERS: Final = ("run", "pause", "resume", "extend", "stop")


def allowed(state: SandboxState) -> tuple[str, ...]:
    """The triggers that a user may pull in this state."""
    return tuple(trigger for trigger in _USER_TRIGGERS if (trigger, state) in TABLE)


def target(trigger: str, state: SandboxState, sandbox_id: str = "") -> SandboxState:
    """Where `trigger` leads from `state`; raises `IllegalTransition` where it leads nowhere."""
    try:
        return TABLE[trigger, state]
    except KeyError:
        raise IllegalTransition(
            trigger=trigger, state=state.value, allowed=allowed(state), sandbox_id=sandbox_id
        ) from None


def mermaid() -> str:
    """The machine as a Mermaid state diagram; the documentation holds this text, and a test keeps it fresh."""
    lines = ["stateDiagram-v2", f"    [*] --> {SandboxState.CREATING}"]
    lines += [f"    {source} --> {dest}: {trigger}" for (trigger, source), dest in TABLE.items()]
    return "\n".join([*lines, f"    {SandboxState.STOPPED} --> [*]"])
