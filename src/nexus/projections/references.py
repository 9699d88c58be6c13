"""Which sandbox a person means by an id, the beginning of one, or a name. Standard library only.

In this order: the full id; the name of one that is not stopped; the beginning of an id, at least four characters
after `sb_`, which may itself be left out; the name of a stopped one, the newest first. A name that is in use wins
over an id that happens to begin with it, and both win over history.
"""

from __future__ import annotations

import re
from typing import Any, Final

from nexus.domain.errors import AmbiguousReference, InvalidInput, SandboxNotFound
from nexus.domain.ports import Scalar, ViewStore
from nexus.domain.validation import is_sandbox_id, shown
from nexus.domain.values import Principal, SandboxState

Scope = tuple[str, dict[str, Scalar]]

_PREFIX: Final = re.compile(r"(?:sb_)?([0-9a-f]{4,32})")


def resolve(views: ViewStore, reference: Any, principal: Principal) -> dict[str, Any]:
    """The row of the `sandboxes` table; raises `SandboxNotFound`, or `AmbiguousReference` with the candidates.

    Anything but text is `InvalidInput`.
    """
    if not isinstance(reference, str):
        raise InvalidInput(
            f"A sandbox is named by text, not by {type(reference).__name__}",
            hint="Give its id, the beginning of it, or its name.",
            field="sandbox",
        )

    def look(condition: str, scope: Scope, **more: Scalar) -> list[dict[str, Any]]:
        conditions, params = scope
        return views.query(
            f"SELECT * FROM sandboxes WHERE {condition}{conditions} ORDER BY created_at DESC, sandbox_id DESC LIMIT 3",
            {**params, **more},
        )

    def named(condition: str) -> list[dict[str, Any]]:
        # Names are unique per user only: an admin's own sandbox wins over others' of the same name.
        for scope in scopes:
            found = look(f"name = :name AND status {condition} :stopped", scope, name=reference, stopped=stopped)
            if found:
                return found
        return []

    visible = _visible(principal)
    scopes = (_own(principal), visible) if principal.is_admin or principal.is_system else (visible,)
    stopped = SandboxState.STOPPED.value
    if not (reference.isascii() and reference.isprintable()):
        raise SandboxNotFound(shown(reference))  # neither an id nor a name can be that
    if is_sandbox_id(reference):
        found = look("sandbox_id = :id", visible, id=reference)
        if found:
            return found[0]
        raise SandboxNotFound(reference)
    found = named("<>")
    if found:
        return _only(found, reference)
    prefix = _PREFIX.fullmatch(reference)
    if prefix is not None:
        low = "sb_" + prefix[1]
        found = look("sandbox_id >= :low AND sandbox_id < :high", visible, low=low, high=low + "g")
        if found:
            return _only(found, reference)
    found = named("=")
    if found:
        return found[0]
    raise SandboxNotFound(shown(reference))


def _own(principal: Principal) -> Scope:
    return " AND tenant_id = :tenant AND user_id = :user", {"tenant": principal.tenant_id, "user": principal.user_id}


def _visible(principal: Principal) -> Scope:
    """What this principal can see at all: its own, an admin its tenant's, the installation itself everything."""
    if principal.is_system:
        return "", {}
    if principal.is_admin:
        return " AND tenant_id = :tenant", {"tenant": principal.tenant_id}
    return _own(principal)


def _only(rows: list[dict[str, Any]], reference: str) -> dict[str, Any]:
    if len(rows) == 1:
        return rows[0]
    candidates = tuple(row["sandbox_id"] for row in rows)
    raise AmbiguousReference(
        f"{shown(reference)} fits several sandboxes: {', '.join(candidates)}",
        reference=reference,
        candidates=candidates,
    )
