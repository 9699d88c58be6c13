"""The gRPC plumbing of the loopback Modal: handlers by method name, credentials, faults, cut connections."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream
from modal_proto import api_pb2

from tests.support.cloud.common import Fault, FaultPlan

TOKEN_ID = "ak-loopback"
TOKEN_SECRET = "as-loopback"
RETRY_AFTER = 0.2
"""Seconds that a throttled caller is told to wait."""

REFUSALS = {
    Fault.UNAVAILABLE: Status.UNAVAILABLE,
    Fault.INTERNAL: Status.INTERNAL,
    Fault.UNAUTHENTICATED: Status.UNAUTHENTICATED,
    Fault.FORBIDDEN: Status.PERMISSION_DENIED,
}
BEFORE = (Fault.THROTTLED_ONCE, Fault.THROTTLED, Fault.SLOW, *REFUSALS)


class ConnectionCut(GRPCError):
    """The connection is reset under the call. The status goes nowhere: there is nobody to answer."""

    def __init__(self) -> None:
        super().__init__(Status.UNAVAILABLE, "cut")


def jwt(lifetime: float = 3600.0) -> str:
    """An unsigned token; the SDK reads nothing but when it expires."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + lifetime}).encode()).decode().rstrip("=")
    return f"e30.{payload}.e30"


class Service:
    """A gRPC service whose methods are the public methods of a subclass that are named like its calls.

    A unary method takes a request and returns the answer; one that streams is an asynchronous generator. Both
    raise `GRPCError`, or `ConnectionCut` to reset the connection instead of answering.
    """

    descriptor: ServiceDescriptor

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.calls: Counter[str] = Counter()
        """How often each call arrived, retries included."""
        self._answers: dict[tuple[str, str], Message] = {}

    def check(self, metadata: Any) -> None:
        """Raise UNAUTHENTICATED unless the caller showed its credentials."""
        raise GRPCError(Status.UNAUTHENTICATED, "no credentials")

    def __mapping__(self) -> dict[str, Handler]:
        mapping: dict[str, Handler] = {}
        for call in self.descriptor.methods:
            method = getattr(self, call.name, None)
            if method is None:
                continue
            run = self._streaming(call.name, method) if call.server_streaming else self._unary(call.name, method)
            mapping[f"/{self.descriptor.full_name}/{call.name}"] = Handler(
                run,
                Cardinality.UNARY_STREAM if call.server_streaming else Cardinality.UNARY_UNARY,
                GetMessageClass(call.input_type),
                GetMessageClass(call.output_type),
            )
        return mapping

    def _unary(self, name: str, method: Callable[[Any], Awaitable[Message]]) -> Callable[[Any], Awaitable[None]]:
        async def run(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            try:
                await self._arrive(name, stream)
                key = (name, str(stream.metadata.get("x-idempotency-key", "")) if stream.metadata else "")
                answer = self._answers.get(key)
                if answer is None:
                    answer = await method(request)
                    if key[1]:
                        self._answers[key] = answer
                if self.plan.take(name, [Fault.ANSWER_LOST]):
                    raise ConnectionCut
            except ConnectionCut:
                reset(stream)
                raise
            await stream.send_message(answer)

        return run

    def _streaming(
        self, name: str, method: Callable[[Any], AsyncIterator[Message]]
    ) -> Callable[[Any], Awaitable[None]]:
        async def run(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            try:
                await self._arrive(name, stream)
                async for message in method(request):
                    await stream.send_message(message)
            except ConnectionCut:
                reset(stream)
                raise

        return run

    async def _arrive(self, name: str, stream: Stream[Any, Any]) -> None:
        self.calls[name] += 1
        self.check(stream.metadata or {})
        fault = self.plan.take(name, BEFORE)
        if fault is None:
            return
        if fault is Fault.SLOW:
            while not self.plan.wait_cleared(0):  # noqa: ASYNC110 - the plan is cleared by another thread
                await asyncio.sleep(0.005)
        elif fault in REFUSALS:
            raise GRPCError(REFUSALS[fault], f"{name}: {fault}")
        else:
            wait = api_pb2.RPCRetryPolicy(retry_after_secs=RETRY_AFTER)
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{name}: too many requests", [wait])


def reset(stream: Stream[Any, Any]) -> None:
    """Close the connection with a TCP reset: whatever was on its way is lost."""
    transport = stream._stream.connection._transport
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
