"""What the SDK raises, in the words of the port.

The SDK's own tree does not tell enough. Transport errors of its REST calls come out as httpx's; a broken command stream
as connectrpc's. `AuthenticationException` and `ServiceBusyException` are no `SandboxException`s, and `TimeoutException`
is the parent of `SandboxNotRunningException` and `SandboxUnreachableException`, so the order of the cases below
matters. (As of e2b 2.63, `e2b/exceptions.py` and `e2b/envd/rpc.py`.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nexus.domain.errors import (
    NexusError,
    ProviderAuth,
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderNotRunning,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
)

KEY_HINT = "Check E2B_API_KEY: https://e2b.dev/dashboard?tab=keys shows the valid ones."
OUTAGE_HINT = "Check the network, and https://status.e2b.dev."


@contextmanager
def translated(what: str, *, changes: bool) -> Iterator[None]:
    """Around calls of the SDK. `changes` says that, had the request arrived, something would be different now."""
    try:
        yield
    except NexusError:
        raise
    except Exception as error:
        raise translate(error, what, changes=changes) from error


def translate(error: Exception, what: str, *, changes: bool) -> ProviderError:
    """The port's error for one of the SDK's. What is not known for certain is never said to be gone."""
    import e2b
    import httpx

    def say(text: str) -> str:
        return f"E2B: {what}: {text} ({_brief(error)})"

    match error:
        case e2b.AuthenticationException():
            return ProviderAuth(say("the API key was refused"), hint=KEY_HINT)
        case e2b.ServiceBusyException():
            return ProviderUnavailable(say("the service is busy; nothing was done"))
        case e2b.RateLimitException():
            return ProviderRateLimited(say("too many requests"), retry_after=None)
        case e2b.SandboxNotFoundException():
            return ProviderGone(say("there is no such sandbox"))
        case e2b.SandboxNotRunningException():
            # Paused and killed look alike from here; who needs to know asks the control plane.
            return ProviderNotRunning(say("the sandbox does not run"))
        case e2b.GuestUnresponsiveException():
            return ProviderError(say("its memory cannot be brought back"))
        case e2b.InvalidArgumentException() | e2b.NotEnoughSpaceException():
            return ProviderInvalidRequest(say("refused"))
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return ProviderUnavailable(say("cannot be reached; nothing was done"), hint=OUTAGE_HINT)
        case e2b.TimeoutException():
            return _unsure(say("no answer"), changes and arrived(error))
    status = _status(error)
    if status is not None:
        return _by_status(status, say, changes)
    return _unsure(say("the connection broke"), changes)


def arrived(error: Exception) -> bool:
    """Whether a request that ended in this error may have reached its goal all the same."""
    import e2b
    import httpx
    from connectrpc.errors import ConnectError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, httpx.TransportError):
            return not isinstance(seen, httpx.ConnectError | httpx.ConnectTimeout)
        if isinstance(seen, ConnectError) and seen.__cause__ is not None:
            # Of its transport's errors only a plain ConnectionError means that nothing was sent (pyqwest 0.12).
            return type(seen.__cause__) is not ConnectionError
        seen = seen.__cause__ or seen.__context__
    refusals = (
        e2b.AuthenticationException,
        e2b.RateLimitException,
        e2b.InvalidArgumentException,
        e2b.SandboxNotRunningException,
        e2b.NotFoundException,
    )
    return not isinstance(error, refusals) and _status(error) not in {401, 403}


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error, where there was one: each part of the SDK hides it elsewhere."""
    from connectrpc.code import Code
    from connectrpc.errors import ConnectError

    refused = {Code.PERMISSION_DENIED: 403, Code.UNAUTHENTICATED: 401, Code.INTERNAL: 500, Code.UNIMPLEMENTED: 400}
    cause = error if isinstance(error, ConnectError) else error.__context__
    if isinstance(cause, ConnectError) and cause.code in refused and cause.__cause__ is None:
        return refused[cause.code]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status
    said = re.match(r"([45]\d\d): ", str(error))
    return int(said[1]) if said else None


def _by_status(status: int, say: Callable[[str], str], changes: bool) -> ProviderError:
    if status in {401, 403}:
        return ProviderAuth(say("not allowed"), hint=KEY_HINT)
    if status == 429:
        return ProviderRateLimited(say("too many requests"), retry_after=None)
    if status == 409:
        # Each call that may answer so does it while something else is being done to the sandbox, or with its key.
        return ProviderUnavailable(say("something else is under way; nothing was done"), status=status)
    if status >= 500:
        return _unsure(say("the service failed"), changes)
    return ProviderInvalidRequest(say("refused"), status=status)


def _unsure(message: str, changes: bool) -> ProviderError:
    return ProviderOutcomeUnknown(message) if changes else ProviderUnavailable(message)


def _brief(error: Exception) -> str:
    """One line of the SDK's message, without its advice, and without addresses, which are long and hold our ids."""
    text = re.sub(r" for url \([^\s)]*\)", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
