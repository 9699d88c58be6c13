"""The simple door: `NexusFS`, with plain dicts in and out, as the source document describes it."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from nexus import config
from nexus.adapters.files import LocalBackend
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.provider import NetworkPolicy, OutputSink
from nexus.domain.values import Principal
from nexus.engine import wiring
from nexus.engine.history import AsOf, Moment
from nexus.engine.service import Engine
from nexus.engine.worker import Background


def open_engine(**settings: Any) -> Engine:
    """The typed engine, by the environment's settings and those given here (names as in `nexus config show`)."""
    return wiring.open_engine(config.load(**settings))


class NexusFS:
    """Sandboxes and files for an agent. Thread-safe.

    Settings come from `NEXUS_*` variables, the configuration file, and the arguments here. A sandbox dict has the
    keys sandbox_id, name, status, provider, template_id, user_id, agent_id, tenant_id, created_at, last_active_at,
    paused_at, stopped_at, ttl_minutes, expires_at, uptime_seconds, stop_reason; times are ISO 8601 with offset.
    Errors are those of `nexus.domain.errors`.
    """

    def __init__(
        self,
        backend: LocalBackend | None = None,
        *,
        is_admin: bool | None = None,
        sandbox_provider: str | None = None,
        e2b_api_key: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        agent_id: str | None = None,
        data_dir: str | None = None,
        database_url: str | None = None,
        auto_cleanup: bool = True,
        **settings: Any,
    ) -> None:
        """`auto_cleanup` works in the background: it sweeps expired sandboxes, every `sweep_seconds` (default 5
        minutes), and keeps the warm pool filled where one is configured (`pool_size`, or a template's `pool`)."""
        self._settings = config.load(
            admin=is_admin,
            sandbox_provider=sandbox_provider,
            e2b_api_key=e2b_api_key,
            user=user_id,
            tenant=tenant_id,
            agent=agent_id,
            data_dir=data_dir,
            database_url=database_url,
            **settings,
        )
        self.backend = backend or LocalBackend()
        self.backend.bind(self._settings.data_dir)
        self.principal: Principal = self._settings.principal
        self.engine = wiring.open_engine(self._settings)
        self._background = Background(self.engine, self._settings.sweep_seconds) if auto_cleanup else None
        if self._background is not None:
            self._background.keep_pool()
        self._closed = False
        atexit.register(_close_if_alive, weakref.ref(self))

    @property
    def current_user(self) -> str:
        return self.principal.user_id

    # --- sandboxes -----------------------------------------------------------------------------------------------
    def sandbox_create(
        self,
        name: str,
        ttl_minutes: int | None = None,
        template_id: str | None = None,
        *,
        provider: str | None = None,
        network: NetworkPolicy | None = None,
        limits: ResourceLimits | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        capture: bool | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Create a sandbox that lives `ttl_minutes` (default 10) after its last use.

        `capture` keeps code and output of its runs, encrypted and outside the log: `engine.bodies` reads them.
        """
        view = self.engine.create(
            self.principal,
            name,
            ttl_minutes=ttl_minutes,
            template=template_id,
            provider=provider,
            network=network,
            limits=limits,
            labels=labels,
            env=env,
            capture=capture,
            idempotency_key=idempotency_key,
        )
        if self._background is not None:
            self._background.start()
            self._background.keep_pool()
        return view.to_dict(self.engine.store.now())

    def sandbox_run(
        self,
        sandbox_id: str,
        language: str,
        code: str,
        timeout: int = 30,
        *,
        env: Mapping[str, str] | None = None,
        session: str | None = None,
        on_output: OutputSink | None = None,
    ) -> dict[str, Any]:
        """Run code; its time to live starts anew. `timeout` is in seconds; exceeding it raises.

        Python code that names a `session` finds the variables of the run before it in that session.

        Returns stdout, stderr, exit_code, execution_time (seconds), execution_id, timed_out, truncated.
        """
        execution = self.engine.run(
            self.principal,
            sandbox_id,
            language=language,
            code=code,
            timeout=timeout,
            env=env,
            session=session,
            on_output=on_output,
        )
        return {
            "stdout": execution.stdout,
            "stderr": execution.stderr,
            "exit_code": execution.exit_code,
            "execution_time": execution.execution_time,
            "execution_id": execution.execution_id,
            "timed_out": False,
            "truncated": execution.truncated,
        }

    def sandbox_pause(self, sandbox_id: str) -> dict[str, Any]:
        return self.engine.pause(self.principal, sandbox_id).to_dict(self.engine.store.now())

    def sandbox_resume(self, sandbox_id: str) -> dict[str, Any]:
        return self.engine.resume(self.principal, sandbox_id).to_dict(self.engine.store.now())

    def sandbox_stop(self, sandbox_id: str) -> dict[str, Any]:
        return self.engine.stop(self.principal, sandbox_id).to_dict(self.engine.store.now())

    def sandbox_extend(self, sandbox_id: str, ttl_minutes: int) -> dict[str, Any]:
        return self.engine.extend(self.principal, sandbox_id, ttl_minutes).to_dict(self.engine.store.now())

    def sandbox_status(self, sandbox_id: str, *, as_of: AsOf | None = None) -> dict[str, Any]:
        """As it is, or as it was at a position of the log or at a time (aware, or ISO 8601 text with its offset)."""
        now = self.engine.store.now()
        if as_of is None:
            return self.engine.status(self.principal, sandbox_id).to_dict(now)
        moment = Moment.of(as_of)
        return self.engine.history.status(self.principal, sandbox_id, moment).to_dict(moment.time or now)

    def sandbox_list(self, *, include_stopped: bool = False, as_of: AsOf | None = None) -> dict[str, Any]:
        """`{"sandboxes": [...]}`: the current user's (an admin's: the tenant's), newest first.

        As they are, or as they were: see `sandbox_status`.
        """
        now = self.engine.store.now()
        states = None if include_stopped else ("creating", "active", "paused")
        if as_of is not None:
            moment = Moment.of(as_of)
            past = self.engine.history.fleet(self.principal, moment, states=states, all_users=self.principal.is_admin)
            return {"sandboxes": [view.to_dict(moment.time or now) for view in past]}
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.engine.list(
                self.principal, states=states, all_users=self.principal.is_admin, limit=500, cursor=cursor
            )
            found.extend(view.to_dict(now) for view in page.sandboxes)
            cursor = page.next_cursor
            if cursor is None:
                return {"sandboxes": found}

    # --- files ---------------------------------------------------------------------------------------------------
    def read(self, path: str) -> bytes:
        """A file of the backend (not of a sandbox)."""
        return self.backend.read(path)

    def write(self, path: str, content: bytes | str) -> int:
        return self.backend.write(path, content)

    # --- the end -------------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Let go of the store and the providers. Sandboxes live on until they are stopped or expire."""
        if not self._closed:
            self._closed = True
            if self._background is not None:
                self._background.stop()
            self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _close_if_alive(reference: weakref.ref[NexusFS]) -> None:
    facade = reference()
    if facade is not None:
        facade.close()
