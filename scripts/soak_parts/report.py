"""From measured figures to the marked section of the guide: the only way in which it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = ROOT / "docs/guides/guarantees.md"
FIGURES: Final = ROOT / "docs/guides/guarantees.json"
BEGIN: Final = "<!-- measured: written by `scripts/soak proof`, not by hand -->"
END: Final = "<!-- end of measured -->"

PARTS: Final[dict[str, str]] = {
    "simulation": "simulated schedules without a violation",
    "planted": "faults planted into the engine, all found",
    "model": "worlds and planted faults of the model, all as they must be",
    "forked": "kill -9 of forked processes, each healed by one reconcile",
    "killed": "kill -9 of real processes with local sandboxes on Postgres",
    "crashes": "crashes of Postgres under four writers, nothing acknowledged lost",
    "hostile": "hostile programs against the local provider",
    "tampering": "tests of the audit log, among them tamperings by the thousand",
    "bad input": "tests with bad input through Python and the command line",
    "fuzzers": "fuzzers with five times the tests' budget",
}
"""Name → what the count counts."""


def load() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return found


def section(figures: dict[str, dict[str, Any]]) -> str:
    """The text between the marks."""
    rows = ["| | count | seconds | on |", "|---|---|---|---|"]
    for name, what in PARTS.items():
        one = figures.get(name)
        if one is None:
            rows.append(f"| {what} | not measured yet | | |")
        else:
            more = f" ({one['note']})" if one.get("note") else ""
            rows.append(f"| {what}{more} | {one['count']:,} | {one['seconds']:,} | {one['on']} |")
    return "\n".join(rows)


def write(figures: dict[str, dict[str, Any]]) -> None:
    """Put the figures into the file and the guide."""
    FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    before, _, rest = GUIDE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    GUIDE.write_text(f"{before}{BEGIN}\n{section(figures)}\n{END}{after}")
