"""The figures in the guide are those that were measured, and nobody's hand wrote them."""

from __future__ import annotations

import re

from scripts.soak_parts import report
from scripts.soak_parts.__main__ import COMMANDS


def test_the_section_says_what_was_measured() -> None:
    text = report.GUIDE.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
    between = text.partition(report.BEGIN)[2].partition(report.END)[0]
    assert between.strip() == report.section(report.load()).strip(), "write it with: scripts/soak proof"


def test_every_figure_is_of_a_part_that_there_is() -> None:
    assert set(report.PARTS) == set(COMMANDS)
    for name, figure in report.load().items():
        assert name in report.PARTS
        assert set(figure) - {"note"} == {"count", "seconds", "on"}
        assert figure["count"] > 0
        assert figure["seconds"] >= 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", figure["on"])


def test_what_was_not_run_is_not_claimed() -> None:
    assert report.section({}).count("not measured yet") == len(report.PARTS)
