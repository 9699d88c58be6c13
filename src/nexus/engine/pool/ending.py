"""The end of members: retired in the log first, then removed at the provider, then said to be gone."""

from __future__ import annotations

from nexus.domain import pool as decisions
from nexus.domain.errors import NexusError, ProviderError, ProviderUnsupported, StoreError, StreamConflict
from nexus.domain.pool import NotReady
from nexus.domain.values import RetireReason, system_principal
from nexus.domain.warm_pool import WarmPool
from nexus.engine.pool.members import Members
from nexus.engine.recovery import Report
from nexus.engine.registry import Providers
from nexus.engine.streams import Cause, Steps


def own_cause(command: str) -> Cause:
    """The pool's own work, on nobody's behalf."""
    return Cause.of(system_principal("pool"), f"pool {command}")


def keeper(providers: Providers, name: str) -> WarmPool:
    """Raises `ConfigurationError`, and `ProviderUnsupported` for one that keeps no pool."""
    provider = providers.get(name)
    if not isinstance(provider, WarmPool):
        raise ProviderUnsupported(f"Provider {name} keeps no warm pool", provider=name)
    return provider


class Ending:
    """May be repeated and done by several at once: whatever was left half done is carried on by the next."""

    def __init__(self, members: Members, providers: Providers, installation: str, steps: Steps) -> None:
        self._members = members
        self._providers = providers
        self._installation = installation
        self._step = steps

    def end(self, member_id: str, reason: RetireReason, report: Report, cause: Cause | None = None) -> None:
        """Retire and remove; what cannot be removed now stays retired, for the next round."""
        cause = cause or own_cause("settle")
        try:
            self.retire(member_id, reason, cause)
            self.remove(member_id, cause)
        except (NotReady, StreamConflict):
            return  # a sandbox was faster
        except NexusError as error:
            report.problems.append(f"pool member {member_id}: {error.message}")
            return
        report.pool.append(f"{member_id} was removed: {reason}")

    def retire(
        self, member_id: str, reason: RetireReason, cause: Cause, *, detail: str = "", expected: int | None = None
    ) -> None:
        self._members.record(member_id, lambda m: decisions.retired(m, reason, detail), cause, expected=expected)
        self._step("pool.retired")

    def remove(self, member_id: str, cause: Cause) -> None:
        member = self._members.get(member_id)
        keeper(self._providers, member.provider).withdraw(member_id, self._installation)
        self._step("pool.withdrawn")
        self._members.record(member_id, decisions.removed, cause)

    def remove_quietly(self, member_id: str, cause: Cause) -> None:
        """What is retired and cannot be removed now is removed by the next one who settles."""
        try:
            self.remove(member_id, cause)
        except (ProviderError, StoreError, NotReady):
            return
