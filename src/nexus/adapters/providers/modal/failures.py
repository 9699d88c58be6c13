"""What the SDK raises, in the words of the provider port.

For a call that changes something, only a refusal proves that nothing happened; an outage never proves that anything
is gone.
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Final

from nexus.domain.errors import (
    ConfigurationError,
    NexusError,
    ProviderAuth,
    ProviderError,
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
    ProviderUnsupported,
)

CREDENTIALS_HINT: Final = "Check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; `modal token new` makes new ones."
OUTAGE_HINT: Final = "Check the network, and https://status.modal.com."


def translate(error: Exception, doing: str, *, changes: bool = False) -> NexusError | None:
    """The port's error for what came out of an SDK call; None for what is not the SDK's way to fail (a bug).

    `doing` completes "Modal, when asked to …"; `changes` says that the call may have had an effect.
    """
    from modal import exception as sdk

    if isinstance(error, NexusError):
        return error
    text = f"Modal, when asked to {doing}: {_said(error)}"
    if isinstance(error, (sdk.AuthError, sdk.PermissionDeniedError)):
        return ProviderAuth(text, hint=CREDENTIALS_HINT)
    if isinstance(error, sdk.ResourceExhaustedError):
        return ProviderRateLimited(text, retry_after=_retry_after(error))
    # That a sandbox is gone is concluded by those who looked for it; here an app or an image may be meant. A conflict
    # is one kind of invalid request to the SDK.
    if isinstance(error, (sdk.NotFoundError, sdk.InvalidError, sdk.AlreadyExistsError, sdk.RequestSizeError)):
        return ProviderInvalidRequest(text)
    if isinstance(error, sdk.ImageBuildError):
        return ProviderInvalidRequest(text, hint="Look at the image's build log in Modal's dashboard.")
    if isinstance(error, sdk.UnimplementedError):
        return ProviderUnsupported(text)
    if isinstance(error, sdk.VersionError):
        return ConfigurationError(text, hint="pip install --upgrade 'nexus-sandbox[modal]'")
    if is_outage(error):
        if changes and not _was_turned_away(error):
            return ProviderOutcomeUnknown(text)
        return ProviderUnavailable(text, hint=OUTAGE_HINT)
    if isinstance(error, sdk.Error):
        return ProviderOutcomeUnknown(text) if changes else ProviderError(text)
    return None


def is_outage(error: Exception) -> bool:
    """No answer, or one that only says that there is none to be had."""
    from grpclib.exceptions import StreamTerminatedError
    from h2.exceptions import ProtocolError
    from modal import exception as sdk

    kinds = (
        sdk.ServiceError,
        sdk.InternalError,
        sdk.ConnectionError,
        sdk.TimeoutError,
        sdk.ClientClosed,
        StreamTerminatedError,
        ProtocolError,
        TimeoutError,
        OSError,
        CancelledError,  # the provider was closed under the call
    )
    # Some versions of grpclib show a connection that is gone as an attribute of it that is missing.
    return isinstance(error, kinds) or (isinstance(error, AttributeError) and "_write_appdata" in str(error))


def is_missing(error: Exception) -> bool:
    """The thing that was asked for does not exist (any more)."""
    from modal import exception as sdk

    return isinstance(error, sdk.NotFoundError)


def is_taken(error: Exception) -> bool:
    """The name is in use."""
    from modal import exception as sdk

    return isinstance(error, sdk.AlreadyExistsError)


def is_refusal(error: Exception) -> bool:
    """The sandbox is not there, or does not let anything be done in it."""
    from modal import exception as sdk

    return isinstance(error, (sdk.NotFoundError, sdk.ConflictError))


def _was_turned_away(error: Exception) -> bool:
    """The server itself said UNAVAILABLE, which by gRPC's rules means that it did not begin."""
    from grpclib import Status

    return getattr(error, "_grpc_status", None) is Status.UNAVAILABLE


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asked to wait; the SDK shows them nowhere but in the raw details."""
    for detail in getattr(error, "_grpc_details", None) or ():
        seconds = getattr(detail, "retry_after_secs", None)
        if isinstance(seconds, (int, float)):
            return float(seconds)
    return None


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error).strip() or type(error).__name__
