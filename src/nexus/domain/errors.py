"""The error tree. Every error carries a stable `code`, a `hint` that says what to do, and its facts as attributes.

NexusError
├── InvalidInput                    a value is not acceptable; nothing was recorded
├── NotAllowed                      the principal may not do this
├── NotFound
│   ├── SandboxNotFound             unknown, or another user's: the two answer alike
│   └── FileNotInSandbox
├── Conflict
│   ├── IllegalTransition           the state machine has no such edge from this state
│   ├── SandboxBusy                 an operation or a run in flight is in the way
│   ├── NameTaken
│   ├── AmbiguousReference          an id prefix that fits several sandboxes
│   ├── IdempotencyMismatch         same key, other parameters
│   └── ConcurrentModification      the stream moved on more often than the retry budget allows
├── ExecutionTimedOut               the code ran longer than its time-out; carries the partial output
├── ExecutionLost                   the outcome of a run is unknown; it is never run again
├── OperationFailed                 the provider could not do it; the outcome is recorded
├── ProviderError                   what adapters raise; see its subclasses
│   ├── ProviderAuth · ProviderInvalidRequest · ProviderUnsupported · ProviderGone · ProviderNotRunning
│   ├── ProviderRateLimited · ProviderUnavailable        nothing happened; try again
│   └── ProviderOutcomeUnknown                           sent, no answer: look before the next attempt
├── StoreError
│   ├── StoreUnavailable            nothing was recorded, nothing is concluded
│   ├── StoreOutcomeUnknown         sent, no answer, and the store stays away: it may have been recorded
│   ├── StoreRestored               the store is an older copy of itself: nothing goes on until an operator has looked
│   ├── StreamConflict              optimistic concurrency: reload and decide again
│   ├── SchemaMismatch              the store needs a migration, or is newer than this program
│   └── UnreadableEvent             an event this version does not know; its sandbox is read-only
├── VerificationFailed              a read model or the audit chain differs from what it should be
└── ConfigurationError              a setting is wrong or something is not installed
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Effect = Literal["none", "unknown"]


class NexusError(Exception):
    """Something went wrong in Nexus."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, message: str = "", *, hint: str = "", **facts: Any) -> None:
        """`message` is for people; `facts` become attributes and `details`."""
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])
        if hint:
            self.hint = hint
        self.details: dict[str, Any] = facts
        for name, value in facts.items():
            setattr(self, name, value)

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidInput(NexusError, ValueError):
    """A value is not acceptable."""

    code = "invalid_input"


class NotAllowed(NexusError, PermissionError):
    """You may not do this."""

    code = "not_allowed"
    hint = "Only an admin may: set `NEXUS_ADMIN=1`, or `admin = true` in the settings file, if you are one."

    def __str__(self) -> str:
        return self.message


class NotFound(NexusError, LookupError):
    """There is no such thing."""

    code = "not_found"


class SandboxNotFound(NotFound):
    """There is no such sandbox among those that you may see."""

    code = "sandbox_not_found"
    hint = "`nexus sandbox list --all` shows your sandboxes, the stopped ones too."

    def __init__(self, reference: str) -> None:
        super().__init__(f"Sandbox {reference} not found", reference=reference)


class FileNotInSandbox(NotFound):
    """There is no such file in the sandbox."""

    code = "file_not_found"


class Conflict(NexusError):
    """The command does not fit what is there."""

    code = "conflict"


class IllegalTransition(Conflict):
    """The sandbox's state does not allow this."""

    code = "illegal_transition"

    def __init__(self, *, trigger: str, state: str, allowed: tuple[str, ...], sandbox_id: str = "") -> None:
        can = ", ".join(allowed) if allowed else "nothing: it is final"
        super().__init__(
            f"Cannot {trigger} a sandbox that is {state}",
            hint=f"A sandbox that is {state} allows: {can}.",
            trigger=trigger,
            state=state,
            allowed=allowed,
            sandbox_id=sandbox_id,
        )


class SandboxBusy(Conflict):
    """Something in flight is in the way."""

    code = "busy"
    hint = "Wait until it is finished, or stop the sandbox."


class NameTaken(Conflict):
    """The name is in use."""

    code = "name_taken"
    hint = "Stop that sandbox first, or choose another name."

    def __init__(self, *, name: str, user_id: str) -> None:
        super().__init__(f"Sandbox with name '{name}' already exists for user {user_id}", name=name, user_id=user_id)


class AmbiguousReference(Conflict):
    """The id prefix fits several sandboxes."""

    code = "ambiguous"
    hint = "Give more characters of the id."


class IdempotencyMismatch(Conflict):
    """This idempotency key was used with other parameters."""

    code = "idempotency_mismatch"
    hint = "Use a new key for a new request."


class ConcurrentModification(Conflict):
    """Others changed the sandbox again and again; nothing was recorded."""

    code = "concurrent_modification"
    hint = "Try again."


class ExecutionTimedOut(NexusError, TimeoutError):
    """The code ran longer than its time-out and was killed. `stdout`, `stderr` hold what it had printed."""

    code = "execution_timed_out"
    hint = "Give a longer --timeout, or make the code faster."
    stdout: str
    stderr: str
    execution_id: str

    def __init__(self, *, timeout: int, **facts: Any) -> None:
        super().__init__(f"Code execution exceeded {timeout} second timeout", timeout=timeout, **facts)

    def __str__(self) -> str:
        return self.message


class ExecutionLost(NexusError):
    """The outcome of the run is unknown. It may have run; it is never run again."""

    code = "execution_lost"
    hint = "Look at what the code may have done, then decide whether to run it again."


class OperationFailed(NexusError):
    """The provider could not carry out the operation."""

    code = "operation_failed"


class ProviderError(NexusError):
    """The provider reported an error."""

    code = "provider_error"
    retryable: ClassVar[bool] = False
    effect: ClassVar[Effect] = "none"


class ProviderAuth(ProviderError):
    """The provider refused the credentials."""

    code = "provider_auth"
    hint = "Check the provider's API key."


class ProviderInvalidRequest(ProviderError):
    """The provider refused the request."""

    code = "provider_invalid_request"


class ProviderUnsupported(ProviderError):
    """The provider cannot do this."""

    code = "provider_unsupported"


class ProviderGone(ProviderError):
    """The resource does not exist any more: proven, not guessed."""

    code = "provider_gone"


class ProviderNotRunning(ProviderError):
    """The resource exists but does not run."""

    code = "provider_not_running"


class ProviderRateLimited(ProviderError):
    """The provider asks to slow down. `retry_after` is in seconds, or None."""

    code = "provider_rate_limited"
    retryable = True
    retry_after: float | None = None


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached. Nothing happened."""

    code = "provider_unavailable"
    retryable = True


class ProviderOutcomeUnknown(ProviderError):
    """The request was sent and no answer came: it may have taken effect."""

    code = "provider_outcome_unknown"
    retryable = True
    effect = "unknown"


class StoreError(NexusError):
    """The event store reported an error."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The event store cannot be reached. Nothing was recorded."""

    code = "store_unavailable"
    hint = "Check the database and try again."


class StoreOutcomeUnknown(StoreError):
    """The event store went away before it answered: what was to be recorded may have been."""

    code = "store_outcome_unknown"
    hint = "Look at the sandbox once the database is back, before you try again."


class StoreRestored(StoreError):
    """The event store is an older copy of itself."""

    code = "store_restored"


class StreamConflict(StoreError):
    """Another writer was first: reload and decide again."""

    code = "stream_conflict"


class SchemaMismatch(StoreError):
    """The store's schema is not the one that this program needs."""

    code = "schema_mismatch"
    hint = "Run `nexus migrate`."


class UnreadableEvent(StoreError):
    """An event cannot be read by this version; its sandbox is read-only until it can."""

    code = "unreadable_event"
    hint = "Upgrade Nexus to the version that wrote it, or newer."


class VerificationFailed(NexusError):
    """What was checked is not as it should be."""

    code = "verification_failed"


class ConfigurationError(NexusError):
    """A setting is wrong, or something is not installed."""

    code = "configuration"
