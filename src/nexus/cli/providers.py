"""`nexus providers`: a table of capabilities, from the code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
    found = []
    for name in registry.names():
        try:
            found.append(_Seen(name, registry.get(name).capabilities))
        except ConfigurationError as error:
            found.append(_Seen(name, registry.declared(name), error.message, error.hint))
    output = session.output
    if output.json:
        output.value({"providers": [seen.as_dict() for seen in found]})
        return
    if output.quiet:
        for seen in found:
            if seen.configured:
                output.line(seen.name)
        return
    columns = [
        "PROVIDER",
        "CONFIGURED",
        "LANGUAGES",
        "SESSIONS",
        "COMMANDS",
        "PAUSE KEEPS",
        "NETWORK",
        "LIMITS",
        "OWN TTL",
        "GPU",
    ]
    output.table(columns, [[seen.name, "yes" if seen.configured else "no", *_row(seen.capabilities)] for seen in found])
    for seen in found:
        if not seen.configured:
            output.line(f"{seen.name}: {seen.why}. {seen.hint}".rstrip())


@dataclass(frozen=True, slots=True)
class _Seen:
    """A provider, or why it cannot be used."""

    name: str
    capabilities: Capabilities | None
    why: str = ""
    hint: str = ""

    @property
    def configured(self) -> bool:
        return not self.why

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "configured": self.configured,
            "reason": self.why or None,
            "hint": self.hint or None,
            "capabilities": None if self.capabilities is None else asdict(self.capabilities),
        }


def _row(capabilities: Capabilities | None) -> list[str]:
    if capabilities is None:
        return [""] * 8
    pauses = {"none": "cannot pause", "filesystem": "files", "memory": "files and processes"}
    longest = capabilities.max_ttl_seconds
    own = "yes" if capabilities.native_ttl else "no"
    return [
        ", ".join(capabilities.languages),
        ", ".join(capabilities.sessions) or "none",
        "yes" if capabilities.argv else "no",
        pauses[capabilities.pause],
        ", ".join(capabilities.network),
        ", ".join(capabilities.limits) or "none",
        own if longest is None else f"{own}, at most {duration(longest)}",
        "yes" if capabilities.gpu else "no",
    ]
