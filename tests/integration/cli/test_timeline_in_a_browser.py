"""The timeline's report as a person opens it: in a real browser, which draws it and which it asks for nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nexus.cli.sandbox.timeline_svg import page, picture
from nexus.engine.timeline import timeline
from tests.integration.cli.console import Console
from tests.support import browser
from tests.unit.cli.test_timeline import HOSTILE, LIFE, given
from tests.unit.domain.story import at

WHITE, NIGHT = (255, 255, 255), (13, 17, 23)
ACTIVE, PAUSED, CREATING = (0x2F, 0x7D, 0x4F), (0xA9, 0xB4, 0xC2), (0xC9, 0xA2, 0x27)


def test_it_draws_the_bars_and_writes_the_names(tmp_path: Path) -> None:
    """The picture is measured in pixels: as much of each colour as there was time in each state."""
    (tmp_path / "report.html").write_text(page(given(*LIFE, name="nightly build")))
    seen = browser.photograph(tmp_path / "report.html", 900, 300)
    colours = seen.colours(0, 0, 900, 300)
    active, paused, creating = (colours[colour] for colour in (ACTIVE, PAUSED, CREATING))
    assert active > 2000
    # 60, 30 and 10 minutes; two dots lie on the green, and each colour has a sample in the legend.
    assert 0.45 < paused / active < 0.62
    assert 0.12 < creating / active < 0.26
    bar = next(y for y in range(300) if seen.colours(300, y, 900, y + 1)[ACTIVE] > 100)
    words = seen.colours(30, bar, 150, bar + 12)
    assert sum(count for colour, count in words.items() if max(colour) < 120) > 40, "the name beside the bar"
    assert colours.most_common(1)[0][0] == WHITE


def test_it_is_dark_where_the_reader_wants_it_so(tmp_path: Path) -> None:
    for name, text in (("page.html", page(given(*LIFE))), ("picture.svg", picture(given(*LIFE)))):
        (tmp_path / name).write_text(text)
        colours = browser.photograph(tmp_path / name, 400, 200, dark=True).colours(0, 0, 400, 200)
        assert colours.most_common(1)[0][0] == NIGHT
        assert colours[WHITE] == 0
        assert sum(count for colour, count in colours.items() if min(colour) > 180) > 100, "light words"


def test_it_runs_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    text = page(given(*LIFE, name=HOSTILE))
    report.write_text(text)
    seen = browser.read(report)
    assert (seen.console, seen.asked) == ([], [])
    assert "<script" not in seen.dom
    assert "&lt;/text&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in seen.dom
    assert seen.dom.count("<rect") == text.count("<rect")
    assert seen.dom.count("<circle") == text.count("<circle")
    # And whatever might slip into it is stopped by its policy; without that one, this test sees both.
    slipped = '<img src="http://example.invalid/x.png"><script>nope()</script></body>'
    report.write_text(text.replace("</body>", slipped))
    stopped = browser.read(report)
    assert stopped.asked == []
    assert [line for line in stopped.console if "Content Security Policy" in line]
    report.write_text(re.sub("<meta http-equiv[^>]*>", "", text).replace("</body>", slipped))
    loose = browser.read(report)
    assert loose.asked == ["http://example.invalid/x.png"]
    assert [line for line in loose.console if "nope is not defined" in line]


def test_a_fleet_without_sandboxes_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(timeline([], at(5))))
    seen = browser.read(tmp_path / "report.html")
    assert "There were no sandboxes up to 2030-01-01 12:05:00 UTC." in seen.dom
    assert (seen.console, seen.asked) == ([], [])


@pytest.mark.parametrize("option", ["--html", "--svg"])
def test_what_the_command_writes_opens(nexus: Console, tmp_path: Path, option: str) -> None:
    nexus.create("nightly build")
    nexus.ok("sandbox", "run", "nightly build", "-c", "out x")
    nexus.ok("sandbox", "stop", "nightly build")
    target = tmp_path / f"report.{option[2:]}"
    nexus.ok("sandbox", "timeline", option, str(target))
    seen = browser.read(target)
    assert (seen.console, seen.asked) == ([], [])
    assert ">nightly build</text>" in seen.dom
    assert "run succeeded" in seen.dom
