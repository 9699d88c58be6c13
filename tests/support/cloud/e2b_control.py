"""The loopback E2B's control plane: the REST calls of `e2b` 2.63 for sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.support.cloud.e2b_http import Answer, refusal
from tests.support.cloud.e2b_world import ENVD_VERSION, CloudSandbox, KeyUse, World

API_KEY = "e2b_loopback"
TEMPLATES = ("base", "python-data")


class Request:
    """What a control-plane call is given."""

    def __init__(self, query: Mapping[str, str], body: Any, key: str | None, sandbox_id: str = "") -> None:
        self.query, self.body, self.key, self.sandbox_id = query, body, key, sandbox_id


class ControlPlane:
    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: Mapping[str, Callable[[Request], Answer]] = {
            "create": self.create,
            "list": self.list,
            "info": self.info,
            "kill": self.kill,
            "timeout": self.timeout,
            "pause": self.pause,
            "connect": self.connect,
        }

    @staticmethod
    def operation(method: str, path: str) -> tuple[str, str]:
        """Name of the call, and the sandbox id in its path; 404 for what E2B's SDK does not call here."""
        match (method, path.strip("/").split("/")):
            case ("POST", ["v2", "sandboxes"]):
                return "create", ""
            case ("GET", ["v2", "sandboxes"]):
                return "list", ""
            case ("GET", ["sandboxes", sandbox_id]):
                return "info", sandbox_id
            case ("DELETE", ["sandboxes", sandbox_id]):
                return "kill", sandbox_id
            case ("POST", ["sandboxes", sandbox_id, ("timeout" | "pause") as call]):
                return call, sandbox_id
            case ("POST", ["v2", "sandboxes", sandbox_id, "connect"]):
                return "connect", sandbox_id
        raise refusal(404, f"no such route: {method} {path}")

    def _there(self, request: Request) -> CloudSandbox:
        sandbox = self.world.get(request.sandbox_id)
        if sandbox is None:
            raise refusal(404, f'Sandbox "{request.sandbox_id}" was not found')
        return sandbox

    def _settled(self, request: Request) -> CloudSandbox:
        """What nothing else is being done to: else the calls that change a sandbox answer 409."""
        sandbox = self._there(request)
        if sandbox.in_transition:
            raise refusal(409, f'Sandbox "{request.sandbox_id}" is being changed')
        return sandbox

    def _timeout(self, seconds: int) -> int:
        if seconds > self.world.max_timeout:
            raise refusal(400, f"Timeout cannot be greater than {self.world.max_timeout // 3600} hours")
        return seconds

    # --- calls -----------------------------------------------------------------------------------------------------
    def create(self, request: Request) -> Answer:
        self._timeout(request.body.get("timeout", 15))
        if request.body["templateID"] not in TEMPLATES:
            raise refusal(404, f"template '{request.body['templateID']}' not found")
        if request.key is None or not self.world.honour_keys:
            return Answer(201, _created(self.world.create(request.body)))
        with self.world.lock:
            use = self.world.keys.get(request.key)
            if use is None:
                use = self.world.keys[request.key] = KeyUse(request.body)
            elif use.body != request.body:
                raise refusal(422, "The idempotency key was used with another request", "idempotency_request_mismatch")
            elif not use.sandbox_id:
                raise refusal(409, "A request with this idempotency key is in progress", "idempotency_in_progress")
            else:
                made = self.world.sandboxes.get(use.sandbox_id)
                # As documented nowhere: a key outlives its sandbox and then names one that is gone.
                return Answer(201, _created(made) if made else {**_EMPTY, "sandboxID": use.sandbox_id})
        sandbox = self.world.create(request.body)
        use.sandbox_id = sandbox.id
        return Answer(201, _created(sandbox))

    def list(self, request: Request) -> Answer:
        self.world.expire()
        wanted = {unquote(k): unquote(v) for k, v in parse_qsl(request.query.get("metadata", ""))}
        states = request.query.get("state", "running,paused").split(",")
        with self.world.lock:
            found = [
                s for s in self.world.sandboxes.values() if wanted.items() <= s.metadata.items() and _state(s) in states
            ]
        found.sort(key=lambda s: (s.started_at, s.id), reverse=request.query.get("order") != "asc")
        start = int(request.query.get("nextToken") or 0)
        size = min(int(request.query.get("limit") or self.world.page_size), self.world.page_size)
        page = found[start : start + size]
        more = {"x-next-token": str(start + size)} if start + size < len(found) else {}
        return Answer(200, [_described(s) for s in page], more)

    def info(self, request: Request) -> Answer:
        sandbox = self._there(request)
        detail = {
            **_described(sandbox),
            "allowInternetAccess": sandbox.internet,
            "lifecycle": {"onTimeout": sandbox.on_timeout, "autoResume": False},
        }
        return Answer(200, detail)

    def kill(self, request: Request) -> Answer:
        self._settled(request)
        if not self.world.kill(request.sandbox_id):
            raise refusal(404, f'Sandbox "{request.sandbox_id}" was not found')
        return Answer(204)

    def timeout(self, request: Request) -> Answer:
        """Sets the deadline, also to an earlier one; a paused sandbox has none."""
        sandbox = self._there(request)
        if sandbox.paused:
            raise refusal(404, f'Sandbox "{request.sandbox_id}" is not running')
        with self.world.lock:
            sandbox.end_at = datetime.now(UTC) + timedelta(seconds=self._timeout(request.body["timeout"]))
        return Answer(204)

    def pause(self, request: Request) -> Answer:
        sandbox = self._settled(request)
        if sandbox.paused:
            raise refusal(409, f'Sandbox "{request.sandbox_id}" is already paused')
        self.world.pause(sandbox)
        return Answer(204)

    def connect(self, request: Request) -> Answer:
        """Resumes a paused sandbox. For a running one the deadline only ever moves later."""
        sandbox = self._settled(request)
        seconds = self._timeout(request.body.get("timeout", 300))
        if sandbox.paused:
            self.world.resume(sandbox, seconds)
            return Answer(201, _created(sandbox))
        with self.world.lock:
            sandbox.end_at = max(sandbox.end_at, datetime.now(UTC) + timedelta(seconds=seconds))
        return Answer(200, _created(sandbox))


def _state(sandbox: CloudSandbox) -> str:
    return "paused" if sandbox.paused else "running"


_EMPTY = {"templateID": "base", "clientID": "loopback", "envdVersion": ENVD_VERSION, "envdAccessToken": "x"}


def _created(sandbox: CloudSandbox) -> dict[str, Any]:
    return {
        **_EMPTY,
        "templateID": sandbox.template,
        "sandboxID": sandbox.id,
        "envdAccessToken": sandbox.token,
    }


def _described(sandbox: CloudSandbox) -> dict[str, Any]:
    return {
        "templateID": sandbox.template,
        "sandboxID": sandbox.id,
        "clientID": "loopback",
        "startedAt": sandbox.started_at.isoformat(),
        "endAt": sandbox.end_at.isoformat(),
        "state": _state(sandbox),
        "cpuCount": 2,
        "memoryMB": 512,
        "diskSizeMB": 1024,
        "envdVersion": ENVD_VERSION,
        "metadata": sandbox.metadata,
    }
