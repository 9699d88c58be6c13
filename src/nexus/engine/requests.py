"""Requests as callers make them, checked against bounds and against what the provider can do.

Whatever is wrong is said here, before anything is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Final, TypedDict, Unpack

from nexus.domain import validation
from nexus.domain.errors import InvalidInput, ProviderUnsupported
from nexus.domain.policies import Limits
from nexus.domain.provider import Capabilities, NetworkPolicy, Template
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.values import Principal
from nexus.engine.creation import Wanted
from nexus.engine.executions import Program
from nexus.engine.registry import Providers

NO_NETWORK: Final = "no network: the provider cannot offer an isolated one on this machine; `nexus doctor` says why"


class SandboxOptions(TypedDict, total=False):
    """What may be said of a new sandbox besides its name; None and left out mean the same."""

    ttl_minutes: int | None
    provider: str | None
    template: str | None
    network: NetworkPolicy | None
    """None: full where the provider can offer it here, else none, and the sandbox's notes say so."""
    limits: ResourceLimits | None
    """Resource limits; left out: the template's."""
    labels: Mapping[str, str] | None
    env: Mapping[str, str] | None
    """Environment variables of every program in the sandbox. Their values reach the sandbox and nothing else."""
    capture: bool | None
    """Keep code and output of its runs, encrypted and outside the log. None: as the settings say (off)."""


class RunOptions(TypedDict, total=False):
    """What is to be run, and how. Exactly one of `code` and `argv` is needed."""

    language: str
    code: str | bytes | None
    argv: Sequence[str] | None
    timeout: int | None
    """Seconds."""
    stdin: bytes
    env: Mapping[str, str] | None
    fresh: bool
    """Start a new interpreter instead of forking a warm one; with `session`, begin that anew."""
    session: str | None
    """Go on with the variables of the run before this one in the session of this name (python)."""


class Requests:
    """Turns what callers give into checked values."""

    def __init__(
        self,
        providers: Providers,
        limits: Limits,
        template: Callable[[str | None], Template],
        *,
        captures: bool,
        require_capture: Callable[[], None],
    ) -> None:
        """`captures` holds for a sandbox that does not say; `require_capture` raises where nothing can be captured."""
        self._captures = captures
        self._require_capture = require_capture
        self._providers = providers
        self._limits = limits
        self._template = template

    def sandbox(self, principal: Principal, name: str, **options: Unpack[SandboxOptions]) -> Wanted:
        """A new sandbox. Raises `InvalidInput`, `ProviderUnsupported` or `ConfigurationError`."""
        name = validation.name(name)
        given_ttl = options.get("ttl_minutes")
        ttl = self._limits.default_ttl_minutes if given_ttl is None else given_ttl
        ttl = validation.ttl_minutes(ttl, self._limits.max_ttl_minutes)
        template = options.get("template")
        if template is not None:
            validation.identifier(template, "template")
        network = options.get("network")
        if network not in (None, "full", "none"):
            raise InvalidInput(
                f"Unknown network policy {validation.shown(network)}", hint="Use 'full' or 'none'.", field="network"
            )
        labels, env = validation.labels(options.get("labels")), validation.env(options.get("env"))
        chosen_capture = validation.choice(options.get("capture"), "capture")
        capture = self._captures if chosen_capture is None else chosen_capture
        if capture:
            self._require_capture()
        limits = options.get("limits")
        resources = validation.limits(limits) if limits is not None else self._template(template).limits
        provider = options.get("provider")
        chosen = self._providers.default() if provider is None else validation.identifier(provider, "provider")
        self._require_able(chosen, network, ttl)
        self._require_template(chosen, template)
        offered = self._providers.get(chosen).capabilities.network
        notes = () if network or "full" in offered else (NO_NETWORK,)
        return Wanted(
            name=name,
            user_id=principal.user_id,
            tenant_id=principal.tenant_id,
            agent_id=principal.agent_id,
            provider=chosen,
            template_id=template,
            ttl_seconds=ttl * 60,
            max_age_seconds=int(timedelta(days=self._limits.max_age_days).total_seconds()),
            network=network or ("full" if "full" in offered else "none"),
            limits=asdict(resources),
            labels=labels,
            env=env,
            capture=capture,
            notes=notes,
        )

    def require_runs(self, provider: str, program: Program) -> None:
        """Refuse a program that this provider cannot run."""
        able = self._providers.get(provider).capabilities
        if program.argv is not None and not able.argv:
            raise self.unsupported(provider, "run a command", lambda c: c.argv)
        if program.argv is None and program.language not in able.languages:
            raise self.unsupported(provider, f"run {program.language}", lambda c: program.language in c.languages)
        if program.session is not None and program.language not in able.sessions:
            raise self.unsupported(
                provider, f"keep a session of {program.language}", lambda c: program.language in c.sessions
            )
        if program.stdin and not able.stdin:
            raise self.unsupported(provider, "pass standard input", lambda c: c.stdin)

    def require(self, provider: str, what: str, can: Callable[[Capabilities], bool]) -> None:
        """Refuse what this provider cannot do, naming those that can."""
        if not can(self._providers.get(provider).capabilities):
            raise self.unsupported(provider, what, can)

    def unsupported(self, provider: str, what: str, can: Callable[[Capabilities], bool]) -> ProviderUnsupported:
        able = [name for name in self._providers.able(can) if name != provider]
        hint = f"These can: {', '.join(able)}." if able else ""
        return ProviderUnsupported(f"Provider {provider} cannot {what}", hint=hint, provider=provider, declared=True)

    def _require_able(self, provider: str, network: NetworkPolicy | None, ttl: int) -> None:
        if network is not None:
            self.require(provider, f"offer network '{network}'", lambda c: network in c.network)
        longest = self._providers.get(provider).capabilities.max_ttl_seconds
        if longest is not None and ttl * 60 > longest:
            raise InvalidInput(
                f"Provider {provider} keeps a sandbox for at most {longest // 60} minutes",
                hint="Give a shorter ttl.",
                field="ttl",
            )

    def _require_template(self, provider: str, name: str | None) -> None:
        if not self._template(name).declared and not self._providers.get(provider).capabilities.own_templates:
            raise InvalidInput(
                f"Provider {provider} has no template {validation.shown(name)}",
                hint="`nexus template list` shows the templates; `nexus template build` makes one.",
                field="template",
            )

    def program(self, **options: Unpack[RunOptions]) -> Program:
        """What is to be run. Raises `InvalidInput`."""
        code, argv, timeout = options.get("code"), options.get("argv"), options.get("timeout")
        stdin, fresh = options.get("stdin", b""), options.get("fresh", False)
        seconds = validation.timeout(
            self._limits.default_timeout if timeout is None else timeout, self._limits.max_timeout
        )
        if (code is None) == (argv is None):
            raise InvalidInput("Give either code or a command, not both and not neither", field="code")
        if len(stdin) > self._limits.max_code_bytes:
            raise InvalidInput(f"Standard input has more than {self._limits.max_code_bytes} bytes", field="stdin")
        env = tuple(validation.env(options.get("env")).items())
        session = options.get("session")
        if session is not None:
            validation.identifier(session, "session")
        if argv is not None:
            if session is not None:
                raise InvalidInput("A session runs code, not a command", hint="Give code.", field="session")
            return Program("command", seconds, argv=validation.argv(argv), stdin=stdin, env=env, fresh=fresh)
        language = validation.language(options.get("language", "python"))
        source = validation.code(code, self._limits.max_code_bytes)
        return Program(language, seconds, code=source, stdin=stdin, env=env, fresh=fresh, session=session)
