"""What the documentation generates from the code is as the code is now.

`NEXUS_WRITE_DOCS=1 pytest tests/unit/test_docs.py` writes it anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus import config
from nexus.domain.events import EVENT_TYPES
from nexus.domain.lifecycle import mermaid
from nexus.domain.provider import Capabilities
from nexus.engine.registry import BUILT_IN, Providers

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def events() -> str:
    lines = ["| event | version | holds |", "|---|---|---|"]
    for kind in EVENT_TYPES:
        lines.append(f"| `{kind.TOPIC}` | {kind.VERSION} | {', '.join(kind.model_fields)} |")
    return "\n".join(lines)


def capabilities() -> str:
    settings = config.load(
        env={}, e2b_api_key="placeholder", modal_token_id="placeholder", modal_token_secret="placeholder"
    )
    all_of_them = {name: Providers(settings).get(name).capabilities for name in BUILT_IN}
    rows: dict[str, Callable[[Capabilities], str]] = {
        "languages": lambda c: ", ".join(c.languages),
        "pause keeps": lambda c: {"memory": "files and processes", "filesystem": "files", "none": "-"}[c.pause],
        "same resource after a pause": lambda c: "yes" if c.ref_survives_pause else "no",
        "lists what is paused": lambda c: "yes" if c.lists_paused else "no",
        "ends by itself": lambda c: "yes" if c.native_ttl else "no",
        "longest time to live": lambda c: f"{c.max_ttl_seconds // 3600} h" if c.max_ttl_seconds else "-",
        "network": lambda c: ", ".join(c.network),
        "limits": lambda c: ", ".join(sorted(c.limits)) or "-",
        "GPU": lambda c: "yes" if c.gpu else "no",
        "sessions": lambda c: ", ".join(c.sessions) or "-",
        "files": lambda c: "yes" if c.files else "no",
    }
    lines = [f"| | {' | '.join(all_of_them)} |", "|---" * (len(all_of_them) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(tell(c) for c in all_of_them.values())} |" for name, tell in rows.items()]
    return "\n".join(lines)


def settings() -> str:
    lines = ["| setting | variable | default | says |", "|---|---|---|---|"]
    for one in config.SETTINGS:
        default = "" if one.default is None else str(one.default).lower() if one.kind is bool else str(one.default)
        variables = " or ".join(f"`{name}`" for name in one.variables)
        about = one.about.replace("|", "\\|") + (" (a secret: never shown)" if one.secret else "")
        lines.append(f"| `{one.name}` | {variables} | {default} | {about} |")
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "lifecycle": ("how-it-works.md", lambda: f"```mermaid\n{mermaid()}\n```"),
    "events": ("how-it-works.md", events),
    "settings": ("cli.md", settings),
    "capabilities": ("providers.md", capabilities),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_guide_is_fresh(name: str) -> None:
    file, draw = SECTIONS[name]
    guide = GUIDES / file
    text = guide.read_text()
    wanted = f"<!-- {name} -->\n{draw()}\n<!-- /{name} -->"
    if os.environ.get("NEXUS_WRITE_DOCS"):
        text = re.sub(rf"<!-- {name} -->.*<!-- /{name} -->", lambda _: wanted, text, flags=re.DOTALL)
        guide.write_text(text)
    assert wanted in text, "run NEXUS_WRITE_DOCS=1 pytest tests/unit/test_docs.py"
