"""`nexus config show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common
from nexus.cli.session import Session, pass_session

if TYPE_CHECKING:
    from nexus.config import Setting, Settings


@click.group(cls=LazyGroup, lazy={"show": ("nexus.cli.settings:show", "Show every setting and its source.")})
@common
def config() -> None:
    """Show the settings and where they come from."""


@click.command()
@common
@pass_session
def show(session: Session) -> None:
    """Show every setting and its source.

    An environment variable wins over the file, the file over the default. Secrets are never shown.
    """
    from nexus.config import SETTINGS

    settings = session.settings
    if session.output.json:
        session.output.value(
            {
                "file": None if settings.file is None else str(settings.file),
                "settings": {setting.name: _as_dict(setting, settings) for setting in SETTINGS},
                "templates": sorted(settings.templates),
                "prices": dict(settings.prices),
                "paused_prices": dict(settings.paused_prices),
            }
        )
        return
    rows = [
        [setting.name, _shown(setting, settings), settings.sources[setting.name], setting.variables[0]]
        for setting in SETTINGS
    ]
    session.output.table(["SETTING", "VALUE", "FROM", "VARIABLE"], rows)
    if settings.templates:
        session.output.line(f"Templates: {', '.join(sorted(settings.templates))}")
    for prices, state in ((settings.prices, "an active"), (settings.paused_prices, "a paused")):
        if prices:
            priced = (f"{provider} {price:g}" for provider, price in prices.items())
            session.output.line(f"Prices of {state} hour: {', '.join(priced)}")
    if settings.file is None:
        from nexus.config import default_config_file

        session.output.hint(f"There is no settings file; it would be {default_config_file()}")


def _shown(setting: Setting, settings: Settings) -> str:
    value = settings.values[setting.name]
    if setting.secret:
        return "(set)" if value else ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _as_dict(setting: Setting, settings: Settings) -> dict[str, Any]:
    value = settings.values[setting.name]
    plain = value if isinstance(value, bool | int | str) else str(value)
    return {
        "value": None if setting.secret else plain,
        "is_set": bool(value),
        "secret": setting.secret,
        "source": settings.sources[setting.name],
        "variables": list(setting.variables),
        "about": setting.about,
    }
