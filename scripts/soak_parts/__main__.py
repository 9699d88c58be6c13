"""`python -m scripts.soak_parts [PART…]`: run proofs one after another, and write what was measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Final

from scripts.soak_parts import report

PYTEST: Final = ["-m", "pytest", "-q", "--color=no", "--numprocesses=2", "--dist=loadgroup"]

COMMANDS: Final[dict[str, tuple[list[str], dict[str, str]]]] = {
    "simulation": (["-m", "tests.simulation.run", "--count", "20000", "--processes", "2"], {}),
    "planted": (["-m", "tests.simulation.run", "--planted"], {}),
    "model": ([*PYTEST, "tests/model"], {"NEXUS_MODEL": "full"}),
    "forked": (["-m", "tests.faults.rounds", "forked", "800"], {}),
    "killed": (["-m", "tests.faults.rounds", "killed", "60"], {}),
    "crashes": ([*PYTEST, "-s", "tests/faults/test_postgres_crashes.py"], {"NEXUS_CRASH_ROUNDS": "60"}),
    "hostile": ([*PYTEST, "tests/faults/test_hostile_local.py"], {}),
    "tampering": ([*PYTEST, "tests/unit/audit"], {"NEXUS_TAMPER_ROUNDS": "1000"}),
    "bad input": ([*PYTEST, "tests/integration/bad_input"], {}),
    "fuzzers": ([*PYTEST, "tests/fuzz"], {"NEXUS_FUZZ": "5"}),
}
FIXED: Final = {"crashes": 60}
"""Counts that are set and not printed: the test passes only after all of them."""


def main(names: list[str]) -> int:
    unknown = set(names) - set(COMMANDS)
    if unknown:
        print(f"soak: there is no part {', '.join(sorted(unknown))}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or COMMANDS:
        arguments, env = COMMANDS[name]
        began = time.monotonic()
        done = subprocess.run([sys.executable, *arguments], env={**os.environ, **env}, capture_output=True, text=True)
        seconds = round(time.monotonic() - began)
        counted = re.search(r"^counted: (\d+)(?: \((.*)\))?$|^(\d+) passed", done.stdout, re.MULTILINE)
        if done.returncode != 0 or counted is None or re.search(r"\d+ failed", done.stdout):
            print(f"{name}: FAILED after {seconds} s\n{done.stdout[-3000:]}{done.stderr[-3000:]}", flush=True)
            failed.append(name)
            continue
        count = FIXED.get(name) or int(counted[1] or counted[3])
        figures = report.load()
        figures[name] = {"count": count, "seconds": seconds, "on": f"{datetime.now(UTC):%Y-%m-%d}"}
        if counted[2]:
            figures[name]["note"] = counted[2]
        report.write(figures)
        print(f"{name}: {count} in {seconds} s {counted[2] or ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
