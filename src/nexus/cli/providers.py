"""`nexus providers`: a table of capabilities, from the code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.cli.times import duration
from nexus.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from nexus.domain.provider import Capabilities


@click.command()
@common
@pass_session
def providers(session: Session) -> None:
    """Show what each provider can do, and which of them can be used here."""
    registry = session.registry
    found: dict[str, tuple[Capabilities | None, str, str]] = {}
    for name in registry.names():
        try:
            found[name] = (registry.get(name).capabilities, "", "")
        except ConfigurationError as error:
            found[name] = (None, error.message, error.hint)
    output = session.output
    if output.json:
        output.value({"providers": [_as_dict(name, *seen) for name, seen in found.items()]})
        return
    if output.quiet:
        for name, (capabilities, _, _) in found.items():
            if capabilities is not None:
                output.line(name)
        return
    rows = [
        [name, *_row(capabilities)] if capabilities is not None else [name, f"not available: {why}", *[""] * 6]
        for name, (capabilities, why, _) in found.items()
    ]
    columns = ["PROVIDER", "LANGUAGES", "PAUSE KEEPS", "NETWORK", "LIMITS", "OWN TTL", "FILES", "GPU"]
    output.table(columns, rows)
    for name, (_, _, hint) in found.items():
        if hint:
            output.hint(f"{name}: {hint}")


def _row(capabilities: Capabilities) -> list[str]:
    pauses = {"none": "cannot pause", "filesystem": "files", "memory": "files and processes"}
    longest = capabilities.max_ttl_seconds
    own = "yes" if capabilities.native_ttl else "no"
    return [
        ", ".join(capabilities.languages) + (", commands" if capabilities.argv else ""),
        pauses[capabilities.pause],
        ", ".join(capabilities.network),
        ", ".join(capabilities.limits) or "none",
        own if longest is None else f"{own}, at most {duration(longest)}",
        "yes" if capabilities.files else "no",
        "yes" if capabilities.gpu else "no",
    ]


def _as_dict(name: str, capabilities: Capabilities | None, why: str, hint: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": name,
        "available": capabilities is not None,
        "reason": why or None,
        "hint": hint or None,
        "capabilities": None if capabilities is None else asdict(capabilities),
    }
