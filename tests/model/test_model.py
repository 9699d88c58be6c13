"""spin looks at every interleaving of the model: nothing is violated, and every planted fault is.

`NEXUS_MODEL=full` looks at larger worlds than the tests have time for; `scripts/soak` sets it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

MODEL: Final = Path(__file__).parent / "lifecycle.pml"
TWO_WORKERS: Final = ("NO_STOPPER", "NO_RUNNER")
SMALL: Final = (*TWO_WORKERS, "ONE_WORKER")
WITH_RUNS: Final = ("NO_STOPPER", "ONE_WORKER")

WORLDS: Final[dict[str, tuple[str, ...]]] = {
    "a creator, a stopper, a worker, and a kill": ("NO_RUNNER", "ONE_WORKER"),
    "a creator, a run, a worker, and a kill": WITH_RUNS,
    "a creator and two workers": (*TWO_WORKERS, "NO_KILLER"),
}
if os.environ.get("NEXUS_MODEL") == "full":
    WORLDS["a creator, two workers, and a kill"] = TWO_WORKERS
    WORLDS["a creator, a stopper, a run, a worker, and a kill"] = ("ONE_WORKER",)

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "F_NO_FENCE": SMALL,
    "F_LATE_CREATOR_DESTROYS": SMALL,
    "F_CLEANS_UP_FIRST": SMALL,
    "F_EFFECT_FIRST": SMALL,
    "F_NOBODY_TAKES_OVER": SMALL,
    "F_ORPHANS_STAY": SMALL,
    "F_ORPHANS_BY_AN_OLD_READING": SMALL,
    "F_AN_OUTAGE_COUNTS_AS_GONE": SMALL,
    "F_RUNS_AGAIN": WITH_RUNS,
    "F_LOSES_WITHOUT_CANCEL": WITH_RUNS,
    "F_EXPIRES_BY_AN_OLD_READING": WITH_RUNS,
    "F_ADOPTER_CLEANS_UP_FIRST": (*TWO_WORKERS, "NO_KILLER"),
}


def look(folder: Path, *macros: str, optimise: str) -> str:
    """What spin's verifier says of the model in that world. Exhaustive: no bit-state hashing, no depth that is cut."""
    given = [f"-D{macro}" for macro in macros]
    for command in (
        ["spin", *given, "-a", str(MODEL)],
        ["gcc", optimise, "-DSAFETY", "-w", "-o", "pan", "pan.c"],
        ["./pan", "-m10000", "-n"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "max search depth too small" not in done.stdout
    return done.stdout


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_nothing_is_violated(tmp_path: Path, world: str) -> None:
    told = look(tmp_path, *WORLDS[world], optimise="-O2")
    assert "errors: 0" in told, f"{told}\nsee it with: spin -t -p {' '.join('-D' + m for m in WORLDS[world])} {MODEL}"


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    told = look(tmp_path, *FAULTS[fault], fault, optimise="-O0")
    assert "errors: 1" in told
    assert "assertion violated" in told


def test_every_fault_of_the_model_is_planted() -> None:
    words = {word for line in MODEL.read_text().splitlines() if line.startswith("#if") for word in line.split()}
    assert {word for word in words if word.startswith("F_")} == set(FAULTS)
