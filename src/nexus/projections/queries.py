"""Questions to the read models. Standard library only: `nexus sandbox list` loads this and nothing heavier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nexus.domain.errors import InvalidInput, NotAllowed
from nexus.domain.ports import Scalar, ViewStore
from nexus.domain.values import Principal, SandboxState, to_text
from nexus.projections.cursor import Cursor
from nexus.projections.references import resolve
from nexus.projections.views import ExecutionView, SandboxView

LARGEST_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Some sandboxes of a list, newest first; `next_cursor` asks for those that follow, None at the end."""

    sandboxes: tuple[SandboxView, ...]
    next_cursor: str | None


class SandboxQueries:
    """Reads the views. Thread-safe as far as its view store is."""

    def __init__(self, views: ViewStore) -> None:
        self._views = views

    # --- one sandbox ---------------------------------------------------------------------------------------------
    def get(self, sandbox_id: str) -> SandboxView | None:
        """By its full id, whoever asks: the caller authorizes."""
        found = self._views.query("SELECT * FROM sandboxes WHERE sandbox_id = :id", {"id": sandbox_id})
        return SandboxView.from_row(found[0]) if found else None

    def by_reference(self, reference: str, principal: Principal) -> SandboxView:
        """The sandbox that a person means; see `nexus.projections.references`.

        Raises `SandboxNotFound` (for another's sandbox just the same) and `AmbiguousReference`.
        """
        return SandboxView.from_row(resolve(self._views, reference, principal))

    # --- lists ---------------------------------------------------------------------------------------------------
    def page(
        self,
        principal: Principal,
        *,
        states: Iterable[SandboxState | str] | None = None,
        provider: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        all_users: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """The principal's sandboxes, newest first; `all_users` widens to the tenant, for its admins alone.

        `states` None means every state; `labels` must all match; `name` must be equal. Raises `InvalidInput` for a
        state or limit that cannot be, or a cursor of another list, and `NotAllowed`.
        """
        if type(limit) is not int or not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(f"The limit must be a whole number from 1 to {LARGEST_PAGE}", field="limit")
        if all_users and not (principal.is_admin or principal.is_system):
            raise NotAllowed(f"{principal.actor} may not list other users' sandboxes", actor=principal.actor)
        where, params = _visible(principal, all_users=all_users)
        chosen = None if states is None else sorted({_state(state) for state in states})
        if chosen is not None:
            _one_of(where, params, "status", chosen)
        if provider is not None:
            where.append("provider = :provider")
            params["provider"] = _wanted(provider, "provider")
        if name is not None:
            where.append("name = :name")
            params["name"] = _wanted(name, "name")
        for number, (label, value) in enumerate(sorted((labels or {}).items())):
            where.append(
                f"EXISTS (SELECT 1 FROM sandbox_labels l WHERE l.sandbox_id = sandboxes.sandbox_id"
                f" AND l.name = :label{number} AND l.value = :value{number})"
            )
            params[f"label{number}"], params[f"value{number}"] = _wanted(label, "label"), _wanted(value, "label")
        question = [list(where), dict(params)]
        if cursor is not None:
            last = Cursor.from_text(cursor, question)
            where.append("(created_at, sandbox_id) < (:before, :before_id)")
            params |= {"before": last.created_at, "before_id": last.sandbox_id}
        rows = self._views.query(
            f"SELECT * FROM sandboxes WHERE {' AND '.join(where)}"
            f" ORDER BY created_at DESC, sandbox_id DESC LIMIT {limit + 1}",
            params,
        )
        more = None
        if len(rows) > limit:
            final = rows[limit - 1]
            more = Cursor(final["created_at"], final["sandbox_id"]).to_text(question)
        return Page(tuple(SandboxView.from_row(row) for row in rows[:limit]), more)

    # --- for the installation's own work -------------------------------------------------------------------------
    def due(self, now: datetime, limit: int = 1000) -> list[str]:
        """Ids of sandboxes that somebody has to look at by `now`, the longest due first."""
        return self._ids(
            f"SELECT sandbox_id FROM due WHERE due_at <= :now ORDER BY due_at LIMIT {int(limit)}",
            {"now": to_text(now)},
        )

    def in_flight(self, limit: int = 1000) -> list[str]:
        """Ids of sandboxes with an operation or a run whose outcome is not recorded."""
        return self._ids(f"SELECT sandbox_id FROM due WHERE in_flight = 1 ORDER BY sandbox_id LIMIT {int(limit)}")

    def live(self) -> list[str]:
        """Ids of all sandboxes that are not stopped."""
        return self._ids("SELECT sandbox_id FROM due ORDER BY sandbox_id")

    def providers(self) -> list[str]:
        """Names of all providers that ever had a sandbox."""
        rows = self._views.query("SELECT DISTINCT provider FROM sandboxes ORDER BY provider")
        return [row["provider"] for row in rows]

    def _ids(self, sql: str, params: Mapping[str, Scalar] | None = None) -> list[str]:
        return [row["sandbox_id"] for row in self._views.query(sql, params)]

    # --- executions ----------------------------------------------------------------------------------------------
    def executions(
        self, sandbox_id: str, *, status: str | None = None, limit: int = 100, newest_first: bool = True
    ) -> list[ExecutionView]:
        """Runs in a sandbox, as far as the projection has followed the log: catch up first to see the latest."""
        condition = "" if status is None else " AND status = :status"
        order = "DESC" if newest_first else "ASC"
        params: dict[str, Any] = {"id": sandbox_id} if status is None else {"id": sandbox_id, "status": status}
        rows = self._views.query(
            f"SELECT * FROM executions WHERE sandbox_id = :id{condition}"
            f" ORDER BY started_at {order}, execution_id {order} LIMIT {int(limit)}",
            params,
        )
        return [ExecutionView.from_row(row) for row in rows]

    def execution(self, execution_id: str) -> ExecutionView | None:
        """One run; the caller authorizes by its sandbox."""
        found = self._views.query("SELECT * FROM executions WHERE execution_id = :id", {"id": execution_id})
        return ExecutionView.from_row(found[0]) if found else None


def _visible(principal: Principal, *, all_users: bool) -> tuple[list[str], dict[str, Scalar]]:
    """Conditions for what a list of this principal may hold. The installation itself sees every tenant."""
    where: list[str] = []
    params: dict[str, Scalar] = {}
    if not (principal.is_system and all_users):
        where.append("tenant_id = :tenant")
        params["tenant"] = principal.tenant_id
    if not all_users:
        where.append("user_id = :user")
        params["user"] = principal.user_id
    return where or ["1 = 1"], params


def _state(value: SandboxState | str) -> str:
    try:
        return SandboxState(value).value
    except ValueError:
        known = ", ".join(state.value for state in SandboxState)
        raise InvalidInput("There is no such state", hint=f"States: {known}.", field="state") from None


def _wanted(value: object, what: str) -> str:
    """A text to look for; raises `InvalidInput` for what no database takes, so that it is nobody's traceback."""
    try:
        if isinstance(value, str) and b"\0" not in value.encode():
            return value
    except UnicodeEncodeError:
        pass
    raise InvalidInput(f"The {what} to look for is not a text", field=what)


def _one_of(where: list[str], params: dict[str, Scalar], column: str, values: list[str]) -> None:
    marks = [f":{column}{number}" for number in range(len(values))]
    where.append(f"{column} IN ({', '.join(marks)})" if marks else "1 = 0")
    params |= {mark[1:]: value for mark, value in zip(marks, values, strict=True)}
