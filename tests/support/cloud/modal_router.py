"""The command router of the loopback Modal: runs commands as real processes and serves their streams."""
# ruff: noqa: N802 - the methods are named like Modal's calls

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from grpclib import GRPCError, Status
from modal_proto import task_command_router_pb2 as pb

from tests.support.cloud.common import Fault, FaultPlan
from tests.support.cloud.modal_commands import Command
from tests.support.cloud.modal_service import ConnectionCut, Service
from tests.support.cloud.modal_world import GenericResult, SandboxRecord, World

MID_STREAM = (Fault.STREAM_CUT, Fault.STREAM_CUT_DEAD, Fault.KILLED)


class CommandRouter(Service):
    """`modal.task_command_router.TaskCommandRouter`, as far as `exec` and file-system snapshots need it."""

    descriptor = pb.DESCRIPTOR.services_by_name["TaskCommandRouter"]

    def __init__(self, plan: FaultPlan, world: World) -> None:
        super().__init__(plan)
        self.world = world
        self.clock_ahead = 0.0
        """Seconds by which the worker ends commands before their time-out: its clock is not the caller's."""

    def check(self, metadata: Any) -> None:
        if not str(metadata.get("authorization", "")).startswith("Bearer "):
            raise GRPCError(Status.UNAUTHENTICATED, "no token")

    def _reach(self, task_id: str) -> SandboxRecord:
        record = self.world.by_task(task_id)
        if record.unreachable:
            raise ConnectionCut
        if not record.running:
            raise GRPCError(Status.NOT_FOUND, "the task has finished")
        return record

    def _command(self, record: SandboxRecord, exec_id: str) -> Command:
        try:
            return record.commands[exec_id]
        except KeyError:
            raise GRPCError(Status.NOT_FOUND, f"there is no command {exec_id}") from None

    async def TaskExecStart(self, request: pb.TaskExecStartRequest) -> pb.TaskExecStartResponse:
        record = self._reach(request.task_id)
        if request.exec_id not in record.commands:  # the id is what makes a repeat harmless
            env: dict[str, str] = {}
            for source in request.secret_sources:
                env |= dict(source.env.contents)
            record.commands[request.exec_id] = self.world.start(
                record, list(request.command_args), env, request.timeout_secs - self.clock_ahead
            )
        return pb.TaskExecStartResponse()

    async def TaskExecStdinWrite(self, request: pb.TaskExecStdinWriteRequest) -> pb.TaskExecStdinWriteResponse:
        command = self._command(self._reach(request.task_id), request.exec_id)
        await command.write(request.offset, request.data, request.eof)
        return pb.TaskExecStdinWriteResponse()

    async def TaskExecStdioRead(
        self, request: pb.TaskExecStdioReadRequest
    ) -> AsyncIterator[pb.TaskExecStdioReadResponse]:
        record = self._reach(request.task_id)
        command = self._command(record, request.exec_id)
        from_stdout = request.file_descriptor == pb.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT
        spool = command.stdout if from_stdout else command.stderr
        offset = request.offset
        while chunk := await spool.read(offset):
            yield pb.TaskExecStdioReadResponse(data=chunk)
            offset += len(chunk)
            self._strike(record)
        self._reach(request.task_id)  # the stream of a sandbox that has ended has no end that can be trusted

    def _strike(self, record: SandboxRecord) -> None:
        fault = self.plan.take("TaskExecStdioRead", MID_STREAM)
        if fault is Fault.KILLED:
            self.world.finish(record, GenericResult.GENERIC_STATUS_TERMINATED)
        elif fault is not None:
            record.unreachable = fault is Fault.STREAM_CUT_DEAD
            raise ConnectionCut

    async def TaskExecWait(self, request: pb.TaskExecWaitRequest) -> pb.TaskExecWaitResponse:
        command = self._command(self._reach(request.task_id), request.exec_id)
        await command.exited.wait()
        self._reach(request.task_id)
        code = command.child.returncode
        return pb.TaskExecWaitResponse(signal=-code) if code < 0 else pb.TaskExecWaitResponse(code=code)

    async def TaskExecPoll(self, request: pb.TaskExecPollRequest) -> pb.TaskExecPollResponse:
        command = self._command(self._reach(request.task_id), request.exec_id)
        if not command.exited.is_set():
            return pb.TaskExecPollResponse()
        code = command.child.returncode
        return pb.TaskExecPollResponse(signal=-code) if code < 0 else pb.TaskExecPollResponse(code=code)

    async def TaskSnapshotFilesystem(
        self, request: pb.TaskSnapshotFilesystemRequest
    ) -> pb.TaskSnapshotFilesystemResponse:
        return pb.TaskSnapshotFilesystemResponse(image_id=self.world.snapshot(self._reach(request.task_id)))
