"""Reaching a container's resident agent: by its socket where that lies on this machine, otherwise through the engine.

Not by the container's attach stream, which all clients would share; see docs/adr/0020.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from nexus.adapters.agent.bundle import container_command, container_file
from nexus.adapters.agent.client import AgentLink, AgentSilent
from nexus.adapters.agent.stream import ByteStream, connect_unix
from nexus.adapters.providers.docker.container import (
    AGENT_FOLDER,
    CODE_FOLDER,
    ENVIRONMENT,
    HOME,
    PROGRAM,
    SOCKET,
    UNREACHABLE,
    agent_limits,
)
from nexus.adapters.providers.docker.engine import Engine
from nexus.adapters.providers.docker.inside import NotSetUp
from nexus.adapters.providers.docker.relay import Relay
from nexus.domain.errors import (
    ProviderError,
    ProviderGone,
    ProviderNotRunning,
    ProviderUnavailable,
)
from nexus.domain.provider import ExecutionResult, Limits, OutputSink, RunRequest

CONNECT_SECONDS: Final = 2.0
BOOT_SECONDS: Final = 20.0
"""How long an agent may take to come up, on a machine that is busy."""
HELLO_SECONDS: Final = 1.0
"""How long an agent that is up may take to say so: a paused container accepts connections and says nothing."""
PATIENCE_SECONDS: Final = 3.0
"""How long the socket may take to show before it is looked for by other ways."""
NICE: Final = 19
"""A container's processor time is its own, so this slows nobody down; it lets the agent through a crowd of programs."""
EXPIRY_GRACE: Final = 5.0
"""An agent lingers this long after its deadline: time enough for whoever resumes a paused sandbox to move it."""


@dataclass(frozen=True, slots=True)
class FirstProcess:
    """What a container starts with."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    file: bytes = b""
    """What its folder holds as `PROGRAM`, where it has one outside."""


def first_process(
    uid: int, limits: Limits, network: str, lifetime: timedelta | None, *, has_folder: bool
) -> FirstProcess:
    """The agent, for code that runs as `uid`; from a file where the container shares a folder with this machine."""
    config: dict[str, object] = {
        "socket": f"{AGENT_FOLDER}/{SOCKET}",
        "home": HOME,
        "uid": uid,
        "gid": uid,
        "code_dir": CODE_FOLDER,
        "nice": NICE,
        "expiry_grace": int(EXPIRY_GRACE * 1000),
        "env": dict(ENVIRONMENT),
        "ttl": None if lifetime is None else int(lifetime.total_seconds() * 1000),
        "unreachable": None if network == "none" else list(UNREACHABLE),
        **agent_limits(limits),
    }
    if has_folder:
        command, file = container_file(config, f"{AGENT_FOLDER}/{PROGRAM}")
        return FirstProcess(command, file=file)
    return FirstProcess(*container_command(config))


class AgentInside:
    """The inside of one container whose first process is the agent. Connections are kept and shared by threads in turn.

    Each operation has a connection to itself, so that a caller who takes output slowly holds up nobody else.
    """

    _IDLE: Final = 4

    def __init__(self, engine: Engine, container_id: str, folder: str, state: Callable[[], str]) -> None:
        """`state` asks the engine what the container is doing; it raises ProviderGone when that is over."""
        self._engine = engine
        self._container = container_id
        self._folder = folder
        self._state = state
        self._lock = threading.Lock()
        self._idle: list[AgentLink] = []
        self._pid = os.getpid()

    # --- connections -----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _link(self) -> Iterator[AgentLink]:
        """A connection that answers. Raises NotSetUp, ProviderNotRunning, ProviderGone, ProviderUnavailable."""
        link = self._kept() or self._fresh()
        try:
            yield link
        except BaseException:
            if link.broken:
                link.close()
            else:
                self._keep(link)
            raise
        self._keep(link)

    def _kept(self) -> AgentLink | None:
        """A connection from before, if it still answers."""
        while True:
            with self._lock:
                if self._pid != os.getpid():  # a fork shares no connection with its parent
                    self._idle, self._pid = [], os.getpid()
                if not self._idle:
                    return None
                link = self._idle.pop()
            try:
                link.ping(within=HELLO_SECONDS)
            except ProviderError:
                link.close()
                self._state_must_be_running()
            else:
                return link

    def _keep(self, link: AgentLink) -> None:
        with self._lock:
            if not link.broken and len(self._idle) < self._IDLE and self._pid == os.getpid():
                self._idle.append(link)
                return
        link.close()

    def _fresh(self) -> AgentLink:
        """A new connection. An agent that is just starting, because its container was restarted, is waited for."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            link = AgentLink(self._stream())
            try:
                welcome = self._greet(link)
            except ProviderError:
                hung_up = link.broken
                link.close()
                if not hung_up or time.monotonic() > patience:
                    raise
                self._state_must_be_running()
                time.sleep(0.02)
            except BaseException:
                link.close()
                raise
            else:
                break
        if welcome.get("ready") is not True:
            link.close()
            raise NotSetUp
        return link

    def _greet(self, link: AgentLink) -> dict[str, object]:
        try:
            return link.hello(within=HELLO_SECONDS)
        except AgentSilent:
            self._state_must_be_running()
        try:
            return link.hello()
        except AgentSilent as error:
            raise ProviderUnavailable("The sandbox's agent does not answer") from error

    def _stream(self) -> ByteStream:
        stream = self._socket()
        if stream is None:
            self._state_must_be_running()
            stream = self._socket() or Relay(self._engine, self._container)
        return stream

    def _socket(self) -> ByteStream | None:
        """The agent's socket; None where it is out of reach, or nobody listens."""
        if not self._folder:
            return None
        try:
            return connect_unix(self._folder, SOCKET, CONNECT_SECONDS)
        except OSError:
            return None

    def _state_must_be_running(self) -> None:
        state = self._state()
        if state == "paused":
            raise ProviderNotRunning("The sandbox is paused")
        if state != "running":
            raise ProviderUnavailable(f"The container is {state}")

    def close(self) -> None:
        with self._lock:
            links, self._idle = self._idle, []
        if self._pid == os.getpid():
            for link in links:
                link.close()

    # --- set-up ----------------------------------------------------------------------------------------------------
    def configured(self) -> bool:
        try:
            with self._link():
                return True
        except (NotSetUp, ProviderUnavailable):
            return False

    def configure(self, env: Mapping[str, str], expires_at: datetime | None) -> tuple[str, ...]:
        """Wait until the agent is up and set it up; a second time changes nothing."""
        link = self._born()
        try:
            notes = link.hello().get("notes")
            link.setup(env, expires_at)
        except BaseException:
            link.close()
            raise
        self._keep(link)
        return tuple(str(note)[:500] for note in notes) if isinstance(notes, list) else ()

    def claim(self, env: Mapping[str, str], expires_at: datetime) -> bool:
        """Set an agent up that is up already; False when somebody else did so before."""
        link = AgentLink(self._stream())
        try:
            self._greet(link)
            mine = not link.setup(env, expires_at)
        except BaseException:
            link.close()
            raise
        self._keep(link)
        return mine

    def await_birth(self) -> None:
        """Wait until the agent is up. Raises ProviderGone when it ended instead."""
        self._born().close()

    def _born(self) -> AgentLink:
        """The first connection to an agent that is starting. Raises ProviderGone when it ended instead."""
        begin = time.monotonic()
        asked = begin
        while True:
            stream = self._socket()
            if stream is not None:
                return AgentLink(stream)
            now = time.monotonic()
            if now - begin > BOOT_SECONDS:
                raise ProviderUnavailable("The sandbox's agent did not come up")
            # Where the folder is not the container's after all, the socket never shows, but a relay finds it.
            if not self._folder or now - begin > PATIENCE_SECONDS:
                self._state_must_be_running()
                link = AgentLink(Relay(self._engine, self._container))
                with contextlib.suppress(ProviderError):
                    link.hello()
                    return link
                link.close()
            elif now - asked > 0.25:
                asked = now
                self._state_must_be_running()
            time.sleep(0.002)

    # --- runs ------------------------------------------------------------------------------------------------------
    def run(self, request: RunRequest, on_output: OutputSink | None = None) -> ExecutionResult:
        try:
            with self._link() as link:
                return link.run(request, on_output)
        except AgentSilent:
            self._make_sure_it_ended(request.execution_id)
            raise

    def _make_sure_it_ended(self, execution_id: str) -> None:
        """The run is overdue and the agent said nothing. A paused sandbox stays: its connection is gone, which ends the
        run as soon as the agent wakes. One that runs and does not obey has to go."""
        try:
            if self._state() != "running":
                return
            self.cancel(execution_id)
        except ProviderGone:
            return
        except ProviderError:
            with self._engine.translated("remove container", effect=True) as client:
                client.remove_container(self._container, force=True, v=True)

    def cancel(self, execution_id: str) -> None:
        with self._link() as link:
            link.cancel(execution_id)

    def extend(self, expires_at: datetime) -> None:
        with self._link() as link:
            link.extend(expires_at)

    def time_left(self) -> float | None:
        with self._link() as link:
            return link.time_left()

    # --- files -----------------------------------------------------------------------------------------------------
    def read_file(self, path: str, limit: int) -> Iterator[bytes]:
        with self._link() as link:
            yield from link.read_file(path, limit)

    def write_file(self, path: str, chunks: Iterable[bytes], limit: int) -> int:
        with self._link() as link:
            return link.write_file(path, chunks, limit)
