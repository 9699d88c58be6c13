"""Runs in a container whose image has no Python: by plain `docker exec`, with the promises that the agent keeps.

Each run is two processes beside the container's first: the keeper, as root, which ends everything of the run in time,
and the program, in a group that no other run has and that it cannot leave. See `shell/`.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from nexus.adapters.providers.docker.bare_run import BareRun, lines_of, number, settled
from nexus.adapters.providers.docker.container import AGENT_FOLDER, ENVIRONMENT, HOME
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.exec_stream import ExecStream
from nexus.adapters.providers.docker.inside import NotSetUp
from nexus.domain.errors import (
    FileNotInSandbox,
    InvalidInput,
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderUnavailable,
    ProviderUnsupported,
)
from nexus.domain.provider import ExecutionResult, OutputSink, RunRequest

_SHELL = Path(__file__).with_name("shell")
LINGER = 1
"""Seconds after a run's time-out when the keeper ends it by itself, should nobody else."""
_FILE_PROBLEMS: Final[Mapping[int, str]] = {
    45: "is a folder",
    46: "is not a regular file",
    47: "cannot be opened by the code's user",
    48: "does not fit into the sandbox",
}
NOTES: Final = (
    "the image has no Python: each run is a `docker exec`, and link-local addresses and neighbours can be reached",
)
_INTERPRETERS: Final[Mapping[str, tuple[str, str]]] = {"bash": ("bash", "main.sh"), "javascript": ("node", "main.js")}


def first_command() -> tuple[str, ...]:
    """What such a container's first process is."""
    return ("/bin/sh", "-c", _script("first"))


def _script(*names: str) -> str:
    return "\n".join((_SHELL / f"{name}.sh").read_text(encoding="utf-8") for name in names)


class Bare:
    """What goes on in one container without the agent."""

    def __init__(self, engine: Engine, container_id: str, code_uid: int) -> None:
        self._engine = engine
        self._container = container_id
        self._uid = code_uid
        self._env: Mapping[str, str] | None = None

    # --- configuration ---------------------------------------------------------------------------------------------
    def configured(self) -> bool:
        """Whether `configure` was done since the container started."""
        return self._stored() is not None

    def configure(self, env: Mapping[str, str], expires_at: datetime | None) -> tuple[str, ...]:
        """Give the environment of all runs; kept inside, in memory, for root alone. The first word counts."""
        if self._stored() is not None:
            return NOTES
        code = f"umask 077; cat >{AGENT_FOLDER}/env.new && mv {AGENT_FOLDER}/env.new {AGENT_FOLDER}/env"
        status, _ = self._call(code, (), "0:0", json.dumps(dict(env)).encode())
        if status != 0:
            raise ProviderError(f"The container does not keep its settings (exit code {status})")
        return NOTES

    def _stored(self) -> Mapping[str, str] | None:
        if self._env is None:
            status, output = self._call(f"exec cat {AGENT_FOLDER}/env", (), "0:0")
            if status == 0:
                self._env = json.loads(output)
        return self._env

    # --- runs ------------------------------------------------------------------------------------------------------
    def run(self, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        """As the port's `run`."""
        if request.session is not None:
            raise ProviderUnsupported("A container without Python keeps no sessions")
        env = self._stored()
        if env is None:
            raise NotSetUp
        script = _script("sweep", "keep")
        limit = str(request.timeout + LINGER)
        keeper = self._exec(("sh", "-c", script, "sh", _plain(request.execution_id), limit), "0:0")
        try:
            return self._kept_run(request, keeper, env, on_output)
        finally:
            keeper.close()

    def _kept_run(
        self, request: RunRequest, keeper: ExecStream, env: Mapping[str, str], on_output: OutputSink | None
    ) -> ExecutionResult:
        lines = lines_of(keeper)
        ready = next(lines, "").split()
        if ready[:1] == ["unready"]:
            self._env = None
            raise NotSetUp
        if ready[:1] == ["seen"]:
            raise ProviderInvalidRequest("This execution ran already, or was cancelled", hint="An id runs once.")
        if ready[:1] != ["ready"]:
            raise ProviderUnavailable("The container could not take another run; nothing happened")
        group, oom_before = ready[1], number(ready[2:3])
        name, needed, argv = self._command(request, group)
        code = request.code or b""
        program = self._exec(
            ("sh", "-c", _script("run"), "sh", group, str(len(code)), name, needed, *argv),
            f"{self._uid}:{group}",
            {"LANG": "C.UTF-8", **ENVIRONMENT, **env, **request.env},
            HOME,
        )
        try:
            return BareRun(request, keeper, lines, program, oom_before, on_output, self._last_resort).carry_out(code)
        finally:
            program.close()

    def _command(self, request: RunRequest, group: str) -> tuple[str, str, tuple[str, ...]]:
        """The name of the program's file, the interpreter without which it cannot run, the command line."""
        if request.argv is not None:
            return "unused", "", request.argv
        if request.language not in _INTERPRETERS:
            raise ProviderUnsupported(
                f"The image has no Python, and Nexus runs {request.language} code through it",
                hint="Choose a template whose image has python3.",
            )
        interpreter, name = _INTERPRETERS[request.language]
        path = f"/tmp/.nexus-{group}/{name}"  # noqa: S108 - the guest's
        if request.language == "bash":
            return name, "sh", ("sh", "-c", 'command -v bash >/dev/null && exec bash "$1"; exec sh "$1"', "sh", path)
        return name, interpreter, (interpreter, path)

    def _last_resort(self) -> None:
        """The run does not end: its sandbox has to."""
        with self._engine.translated("remove container", effect=True) as client:
            client.remove_container(self._container, force=True, v=True)

    def cancel(self, execution_id: str) -> None:
        status, output = self._call(_script("sweep", "cancel"), (_plain(execution_id),), "0:0")
        if status != 0:
            raise ProviderUnavailable(f"The run could not be cancelled (exit code {status}): {_text(output)}")

    def extend(self, expires_at: datetime) -> None:
        """Such a container has no deadline of its own."""
        if self._stored() is None:
            raise NotSetUp

    def time_left(self) -> float | None:
        return None

    def close(self) -> None:
        """It holds nothing between calls."""

    # --- files -----------------------------------------------------------------------------------------------------
    def read_file(self, path: str, limit: int) -> Iterator[bytes]:
        """As the port's `read_file`."""
        stream = self._exec(("sh", "-c", _script("read"), "sh", _path(path), str(limit + 1)), self._user, None, HOME)
        try:
            size = 0
            for name, chunk in stream.output():
                if name == "stdout":
                    size += len(chunk)
                    if size > limit:
                        raise InvalidInput(f"{path} is larger than {limit} bytes")
                    yield chunk
            self._judge_file(path, self._end_of(stream))
        finally:
            stream.close()

    def write_file(self, path: str, chunks: Iterable[bytes], limit: int) -> int:
        """As the port's `write_file`."""
        draft = f"{_path(path)[:200]}.nexus-{time.monotonic_ns():x}"
        stream = self._exec(("sh", "-c", _script("write"), "sh", path, draft), self._user, None, HOME)
        size, whole = 0, False
        try:
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise InvalidInput(f"{path} would be larger than {limit} bytes")
                    with contextlib.suppress(OSError):  # its exit code says why it stopped reading
                        stream.send(chunk)
                whole = True
            finally:
                stream.finish_input()
                for _ in stream.output():
                    pass
                status = self._end_of(stream)
                if not whole:
                    self._call('rm -f -- "$1"', (draft,), self._user, workdir=HOME)
            self._judge_file(path, status)
        finally:
            stream.close()
        status, output = self._call('mv -f -- "$1" "$2"', (draft, path), self._user, workdir=HOME)
        if status != 0:
            raise InvalidInput(f"{path} cannot be written: {_text(output)}")
        return size

    def _judge_file(self, path: str, status: int) -> None:
        if status == 44:
            raise FileNotInSandbox(f"There is no file {path} in the sandbox", path=path)
        if status in _FILE_PROBLEMS:
            raise InvalidInput(f"{path} {_FILE_PROBLEMS[status]}")
        if status != 0:
            raise ProviderError(f"The file could not be transferred (exit code {status})")

    # --- processes -------------------------------------------------------------------------------------------------
    @property
    def _user(self) -> str:
        return f"{self._uid}:{self._uid}"

    def _exec(
        self, argv: tuple[str, ...], user: str, env: Mapping[str, str] | None = None, workdir: str = "/"
    ) -> ExecStream:
        return ExecStream(self._engine, self._container, argv, user=user, env=env, workdir=workdir)

    def _call(
        self, code: str, arguments: tuple[str, ...], user: str, data: bytes = b"", workdir: str = "/"
    ) -> tuple[int, bytes]:
        """Run a script to its end: its exit code and output."""
        stream = self._exec(("sh", "-c", code, "sh", *arguments), user, None, workdir)
        try:
            if data:
                stream.send(data)
            stream.finish_input()
            output = b"".join(chunk for _, chunk in stream.output())
            return self._end_of(stream), output
        finally:
            stream.close()

    def _end_of(self, stream: ExecStream) -> int:
        code = settled(stream).exit_code
        if code is None:
            raise ProviderGone("The container ended")
        return code


def _plain(execution_id: str) -> str:
    """An id becomes a file's name inside."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", execution_id) or execution_id.startswith("."):
        raise ProviderInvalidRequest("An execution id is letters, digits, `_`, `-` and `.`")
    return execution_id


def _path(path: str) -> str:
    if not path or "\0" in path:
        raise InvalidInput("That is not a path")
    return path


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip()[:500]
