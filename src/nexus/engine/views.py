"""The bridge from a folded state to what callers see: by the same function that writes the read model."""

from __future__ import annotations

from nexus.domain.sandbox import Sandbox
from nexus.projections.inline import Sandboxes
from nexus.projections.views import SandboxView


def view_of(state: Sandbox) -> SandboxView:
    """What the read model says of this state."""
    return SandboxView.from_row({"sandbox_id": state.sandbox_id, **Sandboxes.values(state)})
