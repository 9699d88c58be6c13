"""The code blocks of the source document, found by their heading, so that tests run what it says and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).with_name("sandbox-management.md")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `heading` is the nearest one above, without its number."""

    language: str
    heading: str
    line: int
    text: str


def _blocks() -> Iterator[Block]:
    heading, opened, language = "", 0, ""
    lines: list[str] = []
    for number, line in enumerate(DOCUMENT.read_text(encoding="utf-8").splitlines(), start=1):
        # Only fences at the margin count: one of the examples holds a fence inside a string.
        if line.startswith("```"):
            if opened:
                yield Block(language, heading, opened, "\n".join(lines) + "\n")
                opened, lines = 0, []
            else:
                opened, language = number, line.removeprefix("```").strip()
        elif opened:
            lines.append(line)
        elif line.startswith("#"):
            heading = re.sub(r"^#+ (\d+\. )?", "", line)


@cache
def blocks(language: str) -> dict[str, Block]:
    """The blocks of a language by heading; no heading of the document has two of one language."""
    found: dict[str, Block] = {}
    for block in _blocks():
        if block.language == language:
            assert block.heading not in found, f"two {language} blocks under {block.heading!r}"
            found[block.heading] = block
    return found


def execute(heading: str, **names: Any) -> dict[str, Any]:
    """Run a python block word for word with these names defined; returns all names as they are afterwards."""
    block = blocks("python")[heading]
    return execute_text(block.text, line=block.line, **names)


def execute_text(text: str, *, line: int = 0, **names: Any) -> dict[str, Any]:
    names.setdefault("__name__", "snippet")
    # Blank lines in front make a traceback show the document's own line numbers.
    exec(compile("\n" * line + text, str(DOCUMENT), "exec"), names)
    return names
