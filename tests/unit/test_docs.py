"""What the documentation generates from the code is as the code is now.

`NEXUS_WRITE_DOCS=1 pytest tests/unit/test_docs.py` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from nexus.domain.events import EVENT_TYPES
from nexus.domain.lifecycle import mermaid

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "how-it-works.md"


def events() -> str:
    lines = ["| event | version | holds |", "|---|---|---|"]
    for kind in EVENT_TYPES:
        lines.append(f"| `{kind.TOPIC}` | {kind.VERSION} | {', '.join(kind.model_fields)} |")
    return "\n".join(lines)


SECTIONS = {"lifecycle": lambda: f"```mermaid\n{mermaid()}\n```", "events": events}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_guide_is_fresh(name: str) -> None:
    text = GUIDE.read_text()
    wanted = f"<!-- {name} -->\n{SECTIONS[name]()}\n<!-- /{name} -->"
    if os.environ.get("NEXUS_WRITE_DOCS"):
        text = re.sub(rf"<!-- {name} -->.*<!-- /{name} -->", lambda _: wanted, text, flags=re.DOTALL)
        GUIDE.write_text(text)
    assert wanted in text, "run NEXUS_WRITE_DOCS=1 pytest tests/unit/test_docs.py"
