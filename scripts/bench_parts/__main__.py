"""Runs the parts that are named, or all, prints their rows as they come, and writes them down."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from scripts.bench_parts._measure import Kind, Row

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE.parents[1] / "bench-results" / "latest.json"
SIGNS: Final[dict[Kind, str]] = {
    "times as long": "x",
    "times as fast": "x as fast",
    "ms more": "ms more",
    "ms": "ms",
    "wrong": "wrong",
}


def parts() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def figure(row: Row) -> float:
    found = row.get("figure", row["ratio"])
    return row["ours_ms"] if found is None else found


def table_of(part: str, rows: list[Row]) -> Table:
    table = Table(title=part, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("", "ours ms", "theirs ms", "figure", "10-90 %", "bar", "n", ""):
        table.add_column(heading, justify="left" if heading in {"", "figure"} else "right", no_wrap=True)
    for row in rows:
        kind = row.get("kind", "times as long")
        bound = "≥" if kind == "times as fast" else "≤"
        table.add_row(
            row["name"],
            f"{row['ours_ms']:.2f}",
            "" if row["theirs_ms"] is None else f"{row['theirs_ms']:.2f}",
            f"{figure(row):.2f} {SIGNS[kind]}",
            f"{row['spread'][0]:.2f}-{row['spread'][1]:.2f}",
            "" if row["bar"] is None else f"{bound} {row['bar']:g}",
            str(row["n"]),
            "" if row["bar"] is None else "ok" if row["ok"] else "MISSED",
        )
    return table


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processor": next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        ),
    }


def main() -> int:
    known = parts()
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"one of: {', '.join(known)}; all when none is named")
    wanted = parser.parse_args().part or known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        parser.error(f"unknown part {unknown[0]}; there are: {', '.join(known)}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    found: dict[str, list[Row]] = {}
    for part in wanted:
        found[part] = importlib.import_module(f"scripts.bench_parts.{part}").rows()
        console.print(table_of(part, found[part]), "", sep="\n")
    RESULTS.parent.mkdir(exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    RESULTS.write_text(json.dumps({"at": when, "machine": machine(), "parts": found}, indent=1) + "\n")
    missed = [f"{part}: {row['name']}" for part, rows in found.items() for row in rows if not row["ok"]]
    for name in missed:
        print(f"bar missed: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
