"""Refused commands: each becomes an event in a stream of its own, and touches no sandbox. ADR 0041."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nexus.domain.errors import NexusError, SandboxNotFound
from nexus.domain.policies import authorize
from nexus.domain.refusals import is_refusal, refusal
from nexus.domain.validation import is_sandbox_id
from nexus.domain.values import Action, Principal
from nexus.engine.streams import Cause, Streams
from nexus.projections.queries import SandboxQueries

_log = logging.getLogger("nexus.refusals")


class Refusals:
    """Says in the log what was refused, and lets the refusal go on to whoever asked."""

    def __init__(self, streams: Streams, queries: SandboxQueries) -> None:
        self._streams = streams
        self._queries = queries

    @contextmanager
    def of(self, principal: Principal, command: str, reference: str | None = None) -> Iterator[Cause]:
        """Around a command, with the cause of what it records: a refusal inside is recorded and raised again."""
        cause = Cause.of(principal, command)
        try:
            yield cause
        except NexusError as error:
            if is_refusal(error):
                self._record(cause, reference, error)
            raise

    def require_operator(self, principal: Principal, command: str) -> None:
        """Raise `NotAllowed`, and record it, unless this principal may operate the installation."""
        with self.of(principal, command):
            authorize(principal, Action.OPERATE, None)

    def _record(self, cause: Cause, reference: str | None, error: NexusError) -> None:
        try:
            sandbox_id, owner_id = self._meant(cause.principal, reference, error)
            event = refusal(
                error,
                command=cause.command,
                user_id=cause.principal.user_id,
                reference=reference,
                sandbox_id=sandbox_id,
                owner_id=owner_id,
            )
            self._streams.alone("refusal", event, cause)
        except Exception as problem:  # noqa: BLE001 - whatever the store has, the caller is to hear the refusal
            said = problem.message if isinstance(problem, NexusError) else type(problem).__name__
            _log.warning("the refusal of %s (%s) could not be recorded: %s", cause.command, error.code, said)

    def _meant(self, principal: Principal, reference: str | None, error: NexusError) -> tuple[str | None, str | None]:
        """The sandbox that a reference means, and whose it is where the caller was told that there is none.

        One look by id, whether there is such a sandbox or not: the two take as long as each other. What belongs to
        another tenant is unknown to this one's auditors as well.
        """
        if reference is None or not is_sandbox_id(reference):
            return None, None
        view = self._queries.get(reference)
        if view is None or view.tenant_id != principal.tenant_id:
            return None, None
        return view.sandbox_id, view.user_id if isinstance(error, SandboxNotFound) else None
