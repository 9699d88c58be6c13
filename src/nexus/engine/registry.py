"""Which providers there are, made when they are first needed: no SDK is imported before that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from nexus.domain.errors import ConfigurationError
from nexus.domain.provider import Capabilities, Provider
from nexus.domain.validation import shown

GROUP: Final = "nexus.providers"
"""Entry-point group of third-party providers: name → a callable that takes the settings and returns a `Provider`."""

BUILT_IN: Final[Mapping[str, str]] = {
    "local": "nexus.adapters.providers.local:LocalProvider",
    "docker": "nexus.adapters.providers.docker:DockerProvider",
    "e2b": "nexus.adapters.providers.e2b:E2BProvider",
    "modal": "nexus.adapters.providers.modal:ModalProvider",
}

Factory = Callable[[Any], Provider]


class Providers:
    """Thread-safe registry. `settings` is handed to each provider's factory."""

    def __init__(self, settings: Any, *, given: Iterable[Provider] = ()) -> None:
        self._settings = settings
        self._made: dict[str, Provider] = {provider.name: provider for provider in given}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Every name that can be asked for."""
        third_party = [point.name for point in entry_points(group=GROUP)]
        return [*BUILT_IN, *sorted({*third_party, *self._made} - set(BUILT_IN))]

    def get(self, name: str) -> Provider:
        """The provider of this name; `ConfigurationError` when it is unknown or lacks an extra or a key."""
        with self._lock:
            provider = self._made.get(name)
            if provider is None:
                provider = self._made[name] = self._factory(name)(self._settings)
            return provider

    def default(self) -> str:
        """The configured default; else local where it can run, else docker where an engine answers."""
        configured: str = self._settings.sandbox_provider
        if configured:
            return configured
        reasons = []
        for name in ("local", "docker"):
            try:
                findings = [finding for finding in self.get(name).diagnose() if finding.required and not finding.ok]
            except ConfigurationError as error:
                reasons.append(f"{name}: {error} {error.hint}".strip())
                continue
            if not findings:
                return name
            reasons.append(f"{name}: {findings[0].detail} {findings[0].hint}".strip())
        raise ConfigurationError(
            "No provider can run here: " + "; ".join(reasons),
            hint="Install what is missing, or choose a provider with NEXUS_SANDBOX_PROVIDER.",
        )

    def able(self, can: Callable[[Capabilities], bool]) -> list[str]:
        """Names of the providers, among those that can be made here, whose capabilities satisfy `can`."""
        result = []
        for name in self.names():
            try:
                if can(self.get(name).capabilities):
                    result.append(name)
            except ConfigurationError:
                continue
        return result

    def declared(self, name: str) -> Capabilities | None:
        """What a built-in provider can do, also where it cannot be made for want of an extra or a key."""
        target = BUILT_IN.get(name)
        if target is None:
            return None
        try:
            found = getattr(import_module(target.partition(":")[0]), "CAPABILITIES", None)
        except ImportError:
            return None
        return found if isinstance(found, Capabilities) else None

    def close(self) -> None:
        with self._lock:
            for provider in self._made.values():
                provider.close()
            self._made.clear()

    def _factory(self, name: str) -> Factory:
        try:
            factory = self._find(name)
        except (ImportError, AttributeError) as error:
            # Another's package that is broken must not take the whole installation with it.
            raise ConfigurationError(
                f"Provider {name} cannot be loaded: {type(error).__name__}: {error}",
                hint="Repair or uninstall the package that provides it.",
            ) from error
        if factory is None:
            known = ", ".join(self.names())
            raise ConfigurationError(f"Unknown provider {shown(name)}", hint=f"Known providers: {known}.")
        return factory

    @staticmethod
    def _find(name: str) -> Factory | None:
        target = BUILT_IN.get(name)
        if target is not None:
            module, _, attribute = target.partition(":")
            factory: Factory = getattr(import_module(module), attribute).from_settings
            return factory
        for point in entry_points(group=GROUP, name=name):
            loaded: Factory = point.load()
            return loaded
        return None
