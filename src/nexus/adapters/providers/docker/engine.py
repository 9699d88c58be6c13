"""The connection to a Docker Engine: which one, and what its errors mean.

The SDK is imported at the first call and not before: a run that reaches the resident agent directly needs none of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexus.domain.errors import (
    ConfigurationError,
    ProviderAuth,
    ProviderError,
    ProviderGone,
    ProviderInvalidRequest,
    ProviderOutcomeUnknown,
    ProviderRateLimited,
    ProviderUnavailable,
)

if TYPE_CHECKING:
    from docker import APIClient

DEFAULT_HOST = "unix:///var/run/docker.sock"
ANSWER_SECONDS = 60
"""How long the engine may take to answer one request."""
INSTALL = "pip install 'nexus-sandbox[docker]'"


class Engine:
    """One Docker Engine, connected to when it is first needed and once per process: a fork shares no connection."""

    def __init__(self, base_url: str = "", env: Mapping[str, str] | None = None) -> None:
        """`base_url` is as in DOCKER_HOST; empty: DOCKER_HOST, then the current docker context, then the default."""
        self._base_url = base_url
        self._env = os.environ if env is None else env
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._pid = 0
        self._identity = ""
        self._url = ""

    @property
    def url(self) -> str:
        """Where the engine is, for people and for `is_local`. Raises ConfigurationError for a broken context."""
        if not self._url:
            context = None if self._given else self._context()
            self._url = self._given or (str(context.Host) if context is not None and context.Host else DEFAULT_HOST)
        return self._url

    @property
    def _given(self) -> str:
        """The address, where there is one that goes before any context."""
        return self._base_url or self._env.get("DOCKER_HOST", "")

    @property
    def is_local(self) -> bool:
        """Whether the engine may see this machine's files. Whether it does shows when it is asked to."""
        return self.url.startswith(("unix://", "/"))

    @property
    def api(self) -> APIClient:
        """The SDK's low-level client. Raises ConfigurationError without the SDK, ProviderUnavailable without engine."""
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                self._client = self._connect()
                self._pid = os.getpid()
            return self._client

    @property
    def identity(self) -> str:
        """The engine's own id: the same engine under another address is the same."""
        if not self._identity:
            with self.translated("ask who it is") as client:
                self._identity = str(client.info().get("ID") or "unknown")
        return self._identity

    def _knock(self) -> None:
        """Ask whether anyone is behind a unix socket before the SDK does, which leaves its own open when nobody is."""
        if self._client is None:
            _require_sdk()
        url = self.url
        if not url.startswith(("unix://", "/")):
            return
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(ANSWER_SECONDS)
            try:
                link.connect(url.removeprefix("unix://"))
            except OSError as error:
                raise unreachable(url, error) from error

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _connect(self) -> APIClient:
        docker = _sdk()
        tls: Any = None
        if not self._given:
            context = self._context()
            tls = None if context is None else context.TLSConfig
        elif self._env.get("DOCKER_TLS_VERIFY") and not self.is_local:
            tls = self._tls_from_environment(docker)
        url = self.url
        try:
            return docker.APIClient(
                base_url=url, tls=tls or False, version="auto", timeout=ANSWER_SECONDS, use_ssh_client=True
            )
        except docker.errors.TLSParameterError as error:
            raise ConfigurationError(f"The TLS settings for {url} are wrong: {error}") from error
        except (docker.errors.DockerException, OSError) as error:
            raise unreachable(url, error) from error

    def _tls_from_environment(self, docker: Any) -> Any:
        folder = Path(self._env.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
        return docker.tls.TLSConfig(
            client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
            ca_cert=str(folder / "ca.pem"),
            verify=True,
        )

    def _context(self) -> Any:
        """The context that the docker command would use; None for its default."""
        name = self._env.get("DOCKER_CONTEXT") or _current_context(self._env)
        if name in ("", "default"):
            return None
        _sdk()
        from docker.context import ContextAPI

        try:
            context = ContextAPI.get_context(name)
        except Exception as error:
            raise ConfigurationError(f"The docker context {name} cannot be read: {error}") from error
        if context is None:
            raise ConfigurationError(
                f"There is no docker context {name}", hint="`docker context ls` lists them; DOCKER_CONTEXT chooses."
            )
        return context

    @contextmanager
    def translated(self, doing: str, *, effect: bool = False) -> Iterator[APIClient]:
        """The client; what it raises becomes the port's errors.

        `effect` says that the request changes something: a lost answer is then ProviderOutcomeUnknown, while a
        question that got no answer is only ProviderUnavailable.
        """
        self._knock()
        client = self.api
        import docker.errors
        import requests.exceptions

        try:
            yield client
        except docker.errors.APIError as error:
            raise _from_answer(doing, error) from error
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ConnectionError) as error:
            if effect and not _never_sent(error):
                raise ProviderOutcomeUnknown(f"No answer from the Docker Engine: {doing}") from error
            raise unreachable(self.url, error) from error
        except requests.exceptions.RequestException as error:
            if effect:
                raise ProviderOutcomeUnknown(f"No answer from the Docker Engine: {doing}") from error
            raise unreachable(self.url, error) from error
        except docker.errors.DockerException as error:
            raise unreachable(self.url, error) from error


def unreachable(url: str, error: BaseException) -> ProviderUnavailable:
    """The error for an engine that does not answer, with what to do about it in this case."""
    text = str(error)
    if "Permission denied" in text:
        hint = "Your user may not use this Docker Engine: add it to the group docker and log in again."
    elif "No such file" in text or "Connection refused" in text:
        hint = "Start the Docker Engine (`systemctl start docker`), or set DOCKER_HOST to the one to use."
    else:
        hint = "Check that the Docker Engine runs and that DOCKER_HOST or the docker context points to it."
    return ProviderUnavailable(f"The Docker Engine at {url} cannot be reached", hint=hint)


def status_of(error: BaseException) -> int:
    """The HTTP status that came with an SDK error; 0 when there was none."""
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else 0


def _require_sdk() -> None:
    if importlib.util.find_spec("docker") is None:
        raise ConfigurationError("The docker provider needs the Docker SDK", hint=f"Run: {INSTALL}")


def _sdk() -> Any:
    _require_sdk()
    import docker
    import docker.errors
    import docker.tls

    return docker


def _current_context(env: Mapping[str, str]) -> str:
    folder = Path(env["DOCKER_CONFIG"]) if env.get("DOCKER_CONFIG") else Path.home() / ".docker"
    try:
        value = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    name = value.get("currentContext", "") if isinstance(value, dict) else ""
    return name if isinstance(name, str) else ""


def _never_sent(error: BaseException) -> bool:
    """Whether the connection failed before a request could leave."""
    import urllib3.exceptions

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, urllib3.exceptions.NewConnectionError | ConnectionRefusedError | FileNotFoundError):
            return True
        if isinstance(seen, PermissionError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _from_answer(doing: str, error: Any) -> ProviderError:
    status = status_of(error)
    said = str(error.explanation or error).strip()
    message = f"The Docker Engine refused: {doing}: {said}"
    if status == 404:
        return ProviderGone(message)
    if status in (401, 403):
        return ProviderAuth(message, hint="Check what this user may do on the Docker Engine.")
    if status == 429:
        return ProviderRateLimited(message)
    if status in (502, 503, 504):
        return ProviderUnavailable(message)
    if status in (400, 405, 409, 413, 422):
        return ProviderInvalidRequest(message)
    return ProviderError(message)
