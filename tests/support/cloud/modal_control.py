"""The control plane of the loopback Modal: apps, images, secrets, and the life of sandboxes of both kinds."""
# ruff: noqa: N802 - the methods are named like Modal's calls

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.support.cloud.common import FaultPlan
from tests.support.cloud.modal_service import TOKEN_ID, TOKEN_SECRET, ConnectionCut, Service, jwt
from tests.support.cloud.modal_world import GenericResult, SandboxRecord, World, new_id

BUILDER_VERSION = "2025.06"


class ControlPlane(Service):
    """`modal.client.ModalClient`, as far as sandboxes need it."""

    descriptor = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]

    def __init__(self, plan: FaultPlan, world: World) -> None:
        super().__init__(plan)
        self.world = world
        self.url = ""
        """Where the command router listens; set when the server does."""
        self.page_size = 100
        """Sandboxes per page of a list."""

    def check(self, metadata: Any) -> None:
        if (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret")) != (TOKEN_ID, TOKEN_SECRET):
            raise GRPCError(Status.UNAUTHENTICATED, "unknown token")

    def _reach(self, sandbox_id: str) -> SandboxRecord:
        record = self.world.get(sandbox_id)
        if record.unreachable:
            raise ConnectionCut
        return record

    # --- what a client asks before its first sandbox -------------------------------------------------------

    async def ClientHello(self, request: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse()

    async def AuthTokenGet(self, request: api_pb2.AuthTokenGetRequest) -> api_pb2.AuthTokenGetResponse:
        return api_pb2.AuthTokenGetResponse(token=jwt())

    async def AppGetOrCreate(self, request: api_pb2.AppGetOrCreateRequest) -> api_pb2.AppGetOrCreateResponse:
        if request.app_name not in self.world.apps:
            if request.object_creation_type != api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
                raise GRPCError(Status.NOT_FOUND, f"there is no app {request.app_name}")
            self.world.apps[request.app_name] = new_id("ap", 22)
        return api_pb2.AppGetOrCreateResponse(app_id=self.world.apps[request.app_name])

    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-loopback", metadata=api_pb2.EnvironmentMetadata(name="main", settings=settings)
        )

    async def ImageGetOrCreate(self, request: api_pb2.ImageGetOrCreateRequest) -> api_pb2.ImageGetOrCreateResponse:
        recipe = request.image.SerializeToString(deterministic=True)
        if self.world.built.get(recipe) not in self.world.images:
            self.world.built[recipe] = new_id("im")
            self.world.images[self.world.built[recipe]] = None
        result = GenericResult(status=GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(
            image_id=self.world.built[recipe], result=result, metadata=api_pb2.ImageMetadata()
        )

    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest) -> api_pb2.ImageFromIdResponse:
        if request.image_id not in self.world.images:
            raise GRPCError(Status.NOT_FOUND, f"there is no image {request.image_id}")
        return api_pb2.ImageFromIdResponse(image_id=request.image_id, metadata=api_pb2.ImageMetadata())

    async def ImageDelete(self, request: api_pb2.ImageDeleteRequest) -> Empty:
        if request.image_id not in self.world.images:
            raise GRPCError(Status.NOT_FOUND, f"there is no image {request.image_id}")
        del self.world.images[request.image_id]
        return Empty()

    async def SecretGetOrCreate(self, request: api_pb2.SecretGetOrCreateRequest) -> api_pb2.SecretGetOrCreateResponse:
        secret_id = new_id("st")
        self.world.secrets[secret_id] = dict(request.env_dict)
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret_id, metadata=api_pb2.SecretMetadata())

    # --- sandboxes of the newer kind ----------------------------------------------------------------------

    async def SandboxCreateV2(self, request: api_pb2.SandboxCreateV2Request) -> api_pb2.SandboxCreateV2Response:
        if request.definition.resources.gpu_config.gpu_type:
            raise GRPCError(Status.INVALID_ARGUMENT, "GPUs need the older kind")
        env: dict[str, str] = {}
        for source in request.secret_sources:
            env |= dict(source.env.contents) or self.world.secrets.get(source.secret_id, {})
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        record = self.world.create(request.app_id, request.definition, tags, env, v2=True)
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=record.id,
            task_id=record.task_id,
            metadata=record.metadata(),
            command_router_access=api_pb2.CommandRouterAccess(url=self.url, jwt=jwt()),
        )

    async def SandboxGetFromNameV2(
        self, request: api_pb2.SandboxGetFromNameRequest
    ) -> api_pb2.SandboxGetFromNameResponse:
        record = self.world.by_name(self.world.apps.get(request.app_name, ""), request.sandbox_name)
        if record is None or len(record.id) == len("sb-") + 22:
            raise GRPCError(Status.NOT_FOUND, f"no sandbox named {request.sandbox_name} is running")
        return api_pb2.SandboxGetFromNameResponse(sandbox_id=record.id, metadata=record.metadata())

    async def SandboxListV2(self, request: api_pb2.SandboxListRequest) -> api_pb2.SandboxListResponse:
        wanted = {(tag.tag_name, tag.tag_value) for tag in request.tags}
        found = [
            record
            for record in self.world.sandboxes.values()
            if (record.running or request.include_finished)
            and record.app_id == request.app_id
            and wanted <= set(record.tags.items())
            and (not request.before_timestamp or record.created_at < request.before_timestamp)
        ]
        found.sort(key=lambda record: -record.created_at)
        return api_pb2.SandboxListResponse(
            sandboxes=[
                api_pb2.SandboxInfo(
                    id=record.id,
                    created_at=record.created_at,
                    app_id=record.app_id,
                    name=record.definition.name,
                    tags=[api_pb2.SandboxTag(tag_name=k, tag_value=v) for k, v in record.tags.items()],
                    task_info=api_pb2.TaskInfo(id=record.task_id, result=record.result),
                    metadata=record.metadata(),
                )
                for record in found[: self.page_size]
            ]
        )

    async def SandboxWaitV2(self, request: api_pb2.SandboxWaitRequest) -> api_pb2.SandboxWaitResponse:
        record = self._reach(request.sandbox_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(record.ended.wait(), request.timeout)
        return api_pb2.SandboxWaitResponse(result=record.result, metadata=record.metadata())

    async def SandboxTerminateV2(self, request: api_pb2.SandboxTerminateRequest) -> api_pb2.SandboxTerminateResponse:
        record = self._reach(request.sandbox_id)
        before = record.result
        self.world.finish(record, GenericResult.GENERIC_STATUS_TERMINATED)
        return api_pb2.SandboxTerminateResponse(existing_result=before)

    async def SandboxTagsGetV2(self, request: api_pb2.SandboxTagsGetRequest) -> api_pb2.SandboxTagsGetResponse:
        record = self._reach(request.sandbox_id)
        return api_pb2.SandboxTagsGetResponse(
            tags=[api_pb2.SandboxTag(tag_name=k, tag_value=v) for k, v in record.tags.items()]
        )

    async def SandboxGetTaskIdV2(self, request: api_pb2.SandboxGetTaskIdRequest) -> api_pb2.SandboxGetTaskIdResponse:
        record = self._reach(request.sandbox_id)
        if not record.running:
            return api_pb2.SandboxGetTaskIdResponse(task_result=record.result)
        return api_pb2.SandboxGetTaskIdResponse(task_id=record.task_id)

    async def SandboxGetCommandRouterAccess(
        self, request: api_pb2.SandboxGetCommandRouterAccessRequest
    ) -> api_pb2.SandboxGetCommandRouterAccessResponse:
        record = self._reach(request.sandbox_id) if request.sandbox_id else self.world.by_task(request.task_id)
        if not record.running:
            raise GRPCError(Status.FAILED_PRECONDITION, "the task has finished")
        return api_pb2.SandboxGetCommandRouterAccessResponse(url=self.url, jwt=jwt())

    # --- sandboxes of the older kind, which GPUs still need: the same life behind other names --------------

    async def SandboxCreate(self, request: api_pb2.SandboxCreateRequest) -> api_pb2.SandboxCreateResponse:
        env: dict[str, str] = {}
        for secret_id in request.definition.secret_ids:
            env |= self.world.secrets[secret_id]
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        record = self.world.create(request.app_id, request.definition, tags, env, v2=False)
        return api_pb2.SandboxCreateResponse(sandbox_id=record.id, metadata=record.metadata())

    async def SandboxGetFromName(
        self, request: api_pb2.SandboxGetFromNameRequest
    ) -> api_pb2.SandboxGetFromNameResponse:
        record = self.world.by_name(self.world.apps.get(request.app_name, ""), request.sandbox_name)
        if record is None or len(record.id) != len("sb-") + 22:
            raise GRPCError(Status.NOT_FOUND, f"no sandbox named {request.sandbox_name} is running")
        return api_pb2.SandboxGetFromNameResponse(sandbox_id=record.id, metadata=record.metadata())

    SandboxWait = SandboxWaitV2
    SandboxTerminate = SandboxTerminateV2
    SandboxTagsGet = SandboxTagsGetV2
    SandboxGetTaskId = SandboxGetTaskIdV2

    async def TaskGetCommandRouterAccess(
        self, request: api_pb2.TaskGetCommandRouterAccessRequest
    ) -> api_pb2.TaskGetCommandRouterAccessResponse:
        if not self.world.by_task(request.task_id).running:
            raise GRPCError(Status.FAILED_PRECONDITION, "the task has finished")
        return api_pb2.TaskGetCommandRouterAccessResponse(url=self.url, jwt=jwt())
