"""Nexus Sandbox Management: one manager for sandboxes that run untrusted code, with a history that can be proven.

`NexusFS` and `LocalBackend` are the simple door; `Engine` (from `open_engine`) is the typed one. Names are imported
when first used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nexus.adapters.files import LocalBackend as LocalBackend
    from nexus.domain.errors import NexusError as NexusError
    from nexus.domain.values import Principal as Principal
    from nexus.engine.service import Engine as Engine
    from nexus.facade import NexusFS as NexusFS
    from nexus.facade import open_engine as open_engine

__version__ = "0.1.0"

_WHERE = {
    "Engine": "nexus.engine.service",
    "LocalBackend": "nexus.adapters.files",
    "NexusError": "nexus.domain.errors",
    "NexusFS": "nexus.facade",
    "Principal": "nexus.domain.values",
    "open_engine": "nexus.facade",
}

__all__ = [
    "Engine",
    "LocalBackend",
    "NexusError",
    "NexusFS",
    "Principal",
    "__version__",
    "open_engine",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'nexus' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
