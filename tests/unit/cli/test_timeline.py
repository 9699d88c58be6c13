"""Timelines: what lies where, in a terminal of any width, and in reports that hold nothing but themselves."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from nexus.cli.sandbox.timeline import drawn
from nexus.cli.sandbox.timeline_svg import page, picture
from nexus.cli.sandbox.timeline_ticks import ticks
from nexus.domain import events as ev
from nexus.engine.lives import lives
from nexus.engine.timeline import Timeline, timeline
from tests.unit.domain import story
from tests.unit.domain.story import at

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\x1b]0;x\x07\u202e&\"'\x00\ufffe<!--"


def given(*told: tuple[ev.Event, float], number: int = 5, name: str = "box", until: float = 100) -> Timeline:
    return timeline(lives(log(*told, number=number, name=name)), at(until))


def log(*told: tuple[ev.Event, float], number: int = 5, name: str = "box") -> list[ev.Envelope]:
    sandbox = str(number) * 32
    entries = []
    for version, (event, minute) in enumerate(told, start=1):
        if isinstance(event, ev.SandboxRequested):
            event = event.model_copy(update={"sandbox_id": "sb_" + sandbox, "name": name, "user_id": name})
        entries.append(replace(story.envelope(event, version, at(minute)), originator_id="sandbox-" + sandbox))
    return entries


LIFE = (
    (story.requested(), 0.0),
    (story.started(), 10.0),
    (story.run_started("ex_a"), 20.0),
    (story.run_finished("ex_a"), 21.0),
    (story.run_started("ex_b"), 30.0),
    (story.paused(), 50.0),
    (story.resumed(), 80.0),
    (story.stopped(attempt=4), 100.0),
)


def test_an_ended_life_fills_the_axis() -> None:
    told = given(*LIFE, until=10_000)
    assert (told.begin, told.end) == (at(0), at(100))
    assert [told.place(moment) for moment in (at(0), at(25), at(100), None, at(-5), at(500))] == [0, 0.25, 1, 1, 0, 1]


def test_a_life_that_lasts_ends_where_one_looks() -> None:
    told = given(*LIFE[:2], until=40)
    assert told.end == at(40)
    assert told.lines[0].stretches[-1].end is None


def test_a_moment_has_some_width() -> None:
    told = given(LIFE[0], until=0)
    assert told.end - told.begin == timedelta(milliseconds=1)
    assert drawn(told, 40)[2].startswith("box  ┄┄┄")


def test_nothing_to_draw() -> None:
    told = timeline([], at(5))
    assert drawn(told, 80) == ["There are no such sandboxes."]
    ET.fromstring(picture(told))
    ET.fromstring(page(told))


def test_bars_and_marks_lie_where_things_happened() -> None:
    told = given(*LIFE)
    assert drawn(told, 25, plain=True)[2] == "box  ..==o=x===------===="
    assert drawn(told, 25)[2] == "box  ┄┄━━●━✗━━━╌╌╌╌╌╌━━━━"


def test_sandboxes_lie_below_each_other_on_one_axis() -> None:
    late = [(event, minute / 2 + 50) for event, minute in LIFE]
    events = [*log(*late, number=2, name="late"), *log(*LIFE, number=1, name="first")]
    rows = drawn(timeline(lives(events), at(1000)), 27, plain=True)
    assert rows[2:4] == ["first  ..==o=x===------====", "late" + " " * 13 + ".=ox=---=="]


@pytest.mark.parametrize("width", [1, 30, 44, 80, 200, 400])
@pytest.mark.parametrize("plain", [True, False])
def test_it_fits(width: int, plain: bool) -> None:
    rows = drawn(given(*LIFE, name="a-name-that-is-longer-than-anybody-wants"), width, plain=plain)
    assert max(map(len, rows[2:])) <= max(width, 30)
    assert "".join(rows).isascii() is plain


def test_the_picture_is_to_scale() -> None:
    root = ET.fromstring(picture(given(*LIFE)))
    (group,) = root.findall(f"{SVG}g")
    bars = [(float(bar.get("x", "")), float(bar.get("width", ""))) for bar in group.findall(f"{SVG}rect")]
    assert bars == [(220.0, 92.0), (312.0, 368.0), (680.0, 276.0), (956.0, 184.0)]
    titles = [bar.findtext(f"{SVG}title") for bar in group.findall(f"{SVG}rect")]
    assert titles[2] == "paused from 2030-01-01 12:50:00 for 30 min"
    assert [float(dot.get("cx", "")) for dot in group.findall(f"{SVG}circle")] == [404.0, 496.0]
    assert [one.findtext(f"{SVG}title") for one in group.findall(f"{SVG}circle")] == [
        "python run ex_a, succeeded: 2030-01-01 12:20:00 for 1 min",
        "python run ex_b, lost: 2030-01-01 12:30:00 for 1 h 10 min",
    ]


def test_the_page_holds_the_same_as_a_table() -> None:
    root = ET.fromstring(page(given(*LIFE)))
    cells = [cell.text for cell in root.iter("td")]
    assert cells == [
        "box", story.SANDBOX, "box", "fake", "2030-01-01 12:00:00", "2030-01-01 13:40:00 (user)", "1 h", "30 min", "2",
    ]  # fmt: skip
    assert root.find(f"body/{SVG}svg") is not None


@pytest.mark.parametrize("draw", [picture, page])
def test_a_report_is_text_and_shapes_and_nothing_else(draw: object) -> None:
    assert callable(draw)
    text = draw(given(*LIFE, name=HOSTILE))
    root = ET.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {
        "svg", "g", "rect", "circle", "line", "text", "title", "html", "head", "body", "meta", "style", "h1", "p",
        "div", "table", "tr", "th", "td",
    }  # fmt: skip
    names = {name for element in root.iter() for name in element.keys()}  # noqa: SIM118 - an element is no mapping
    assert not [name for name in names if name.startswith("on") or name in ("href", "src", "style")]
    assert set(re.findall(r"\w+://[^\"]*|url\(|@import", text)) <= {"http://www.w3.org/2000/svg"}
    assert text.replace("\n", "").isprintable()
    assert r"</text><script>alert(1)</script>\x1b]0;x\x07\u202e" in "".join(root.itertext())


def test_a_hostile_name_steers_no_terminal() -> None:
    assert all(row.isprintable() for row in drawn(given(*LIFE, name=HOSTILE), 80))


@pytest.mark.parametrize("long_name", ["x" * 40, "W" * 40, "ü" * 40, "一" * 40])
def test_a_long_name_stays_beside_its_bar(long_name: str) -> None:
    root = ET.fromstring(picture(given(*LIFE, name=long_name)))
    (shown,) = root.findall(f"{SVG}g/{SVG}text")
    assert shown.text is not None
    assert shown.text.endswith("…")
    assert long_name.startswith(shown.text[:-1])
    assert len(shown.text) * 6 < 220 - 20


@pytest.mark.parametrize("seconds", [0.001, 0.25, 1, 59, 60, 3599, 7200, 86_400, 600_000, 40_000_000, 4_000_000_000])
def test_an_axis_has_few_round_moments(seconds: float) -> None:
    begin = at(0.123)
    found = ticks(begin, begin + timedelta(seconds=seconds))
    assert 1 <= len(found) <= 8
    assert all(begin <= tick.moment <= begin + timedelta(seconds=seconds) for tick in found)
    steps = {(after.moment - before.moment).total_seconds() for before, after in pairwise(found)}
    assert len(steps) <= 1
    assert found[0].day == f"{found[0].moment:%Y-%m-%d}", "the first one says the day"
    labels = [(tick.time, tick.day) for tick in found]
    assert len(set(labels)) == len(labels)


def test_ticks_are_what_people_count_in() -> None:
    found = ticks(at(12 * 60 - 90), at(12 * 60 + 40))
    assert [tick.time for tick in found] == ["22:30", "23:00", "23:30", "00:00", "00:30"]
    assert [tick.day for tick in found] == ["2030-01-01", "", "", "2030-01-02", ""]
