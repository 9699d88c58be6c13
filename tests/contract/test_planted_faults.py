"""The test of the contract: providers that break one promise each are found out, by the test that is about it."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.contract import planted_faults
from tests.contract.planted_faults import FAULTS

ROOT = Path(__file__).parents[2]


def test_every_planted_fault_is_found(tmp_path: Path) -> None:
    where = Path(planted_faults.__file__).relative_to(ROOT)
    wanted = [(fault, test) for fault, tests in FAULTS.items() for test in tests]
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}"]
        + [f"{where}::{fault}::{test}" for fault, test in wanted],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), run.stdout + run.stderr
    found = set()
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None:
            fault, test = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
            found |= {(fault, test), (fault, test.partition("[")[0])}
        assert case.find("error") is None or case.find("failure") is not None, ET.tostring(case)
    assert set(wanted) - found == set(), "these broken providers passed these tests"
    assert len(FAULTS) >= 30
