"""A timeline as a picture and as a page: one file each, without scripts, styles or pictures from elsewhere.

Both are built as trees and written by the XML library, so that no text in them can become markup; what XML or a
reader's eyes could not take is written as an escape first.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from nexus.cli.sandbox.timeline_ticks import ticks
from nexus.cli.terminal import visible
from nexus.cli.times import duration

if TYPE_CHECKING:
    from nexus.engine.timeline import Line, Timeline

_COLOURS: Final = {
    "creating": ("#c9a227", "#d8b541"),
    "active": ("#2f7d4f", "#3f9d66"),
    "paused": ("#a9b4c2", "#66717f"),
    "succeeded": ("#12301f", "#d7f5e3"),
    "failed": ("#c0392b", "#ff7a6b"),
    "timed_out": ("#d35400", "#ffa657"),
    "lost": ("#8e44ad", "#d2a8ff"),
    "running": ("#1f6feb", "#79c0ff"),
}
"""By day and by night: what of a picture is drawn in which colour; the names are those of states and outcomes."""
_STATES: Final = ("creating", "active", "paused")
_INK: Final = {
    "ground": ("#ffffff", "#0d1117"),
    "ink": ("#1b1f24", "#e6edf3"),
    "faint": ("#57606a", "#9198a1"),
    "rule": ("#d0d7de", "#30363d"),
    "stripe": ("#f6f8fa", "#161b22"),
}
_WIDTH: Final = 1200
_LEFT: Final = 220
_RIGHT: Final = 1140
_TOP: Final = 64
_ROW: Final = 26
_BAR: Final = 14
_LONGEST: Final = 180.0
"""Room for a name beside its bar; the whole name is in the tooltip."""
_MANY: Final = 25
"""Sandboxes from which on the axis is written above, too."""
_CROWD: Final = 60
"""Runs from which on they are drawn smaller."""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def _rules(night: int) -> str:
    named = [f"--{name}:{pair[night]}" for name, pair in {**_INK, **_COLOURS}.items()]
    return ":root{" + ";".join(named) + "}"


_DRAWING: Final = (
    _rules(0)
    + "@media(prefers-color-scheme:dark){"
    + _rules(1)
    + "}"
    + "text{fill:var(--ink)}.ground{fill:var(--ground)}.stripe{fill:var(--stripe)}.faint{fill:var(--faint)}"
    + "line{stroke:var(--rule)}circle{stroke:var(--ground)}"
    + "".join(f".{name}{{fill:var(--{name})}}" for name in _COLOURS)
)
_STYLE: Final = (
    ":root{color-scheme:light dark}"
    + _DRAWING
    + "body{font:13px sans-serif;margin:2em;color:var(--ink);background:var(--ground)}"
    + "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin-top:2em}"
    + "td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid var(--rule);white-space:nowrap}"
    + "td:first-child,td:nth-child(3){white-space:normal;overflow-wrap:anywhere;min-width:10em;max-width:24em}"
    + "td:nth-child(2){font-family:monospace}td:nth-child(n+7){font-variant-numeric:tabular-nums}"
    + ".table{overflow-x:auto}"
)


def picture(told: Timeline) -> str:
    """An SVG document."""
    svg = _svg(told)
    style = Element("style")
    style.text = _DRAWING + "svg{background:var(--ground)}"
    svg.insert(1, style)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(svg, encoding="unicode") + "\n"


def page(told: Timeline) -> str:
    """An HTML document, well-formed as XML too: the picture, and the same as a table."""
    html = Element("html", lang="en")
    head, body = SubElement(html, "head"), SubElement(html, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width")
    _text(head, "title", "Sandbox timeline")
    _text(head, "style", _STYLE)
    _text(body, "h1", "Sandbox timeline")
    _text(body, "p", _summary(told))
    if not told.lines:
        return _document(html)
    body.append(_svg(told))
    table = SubElement(SubElement(body, "div", {"class": "table"}), "table")
    titles = SubElement(table, "tr")
    for title in ("Sandbox", "Id", "User", "Provider", "Created", "Stopped", "Active", "Paused", "Runs"):
        _text(titles, "th", title)
    for line in told.lines:
        row = SubElement(table, "tr")
        for cell in _cells(told, line):
            _text(row, "td", cell)
    return _document(html)


def _document(html: Element) -> str:
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode") + "\n"


def _svg(told: Timeline) -> Element:
    height = _TOP + _ROW * max(1, len(told.lines)) + 48
    svg = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "role": "img",
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    _text(svg, "title", f"Sandbox timeline, {_period(told)}")
    _rect(svg, "ground", 0, 0, _WIDTH, height)
    _legend(svg)
    for number in range(0, len(told.lines), 2):
        _rect(svg, "stripe", 0, _TOP - 6 + _ROW * number, _WIDTH, _ROW)
    _axis(svg, told, height)
    if not told.lines:
        _text(svg, "text", "There were no sandboxes.", x="20", y=str(_TOP + 12))
    for number, line in enumerate(told.lines):
        _line(svg, told, line, _TOP + _ROW * number)
    return svg


def _legend(svg: Element) -> None:
    for number, word in enumerate(_COLOURS):
        x = 20 + 140 * number
        if word in _STATES:
            _rect(svg, word, x, 12, 12, 12)
            label = word
        else:
            SubElement(svg, "circle", {"class": word}, cx=str(x + 6), cy="18", r="5")
            label = "run in progress" if word == "running" else f"run {word.replace('_', ' ')}"
        _text(svg, "text", label, x=str(x + 18), y="22")


def _axis(svg: Element, told: Timeline, height: int) -> None:
    faint = {"text-anchor": "middle", "class": "faint"}
    for tick in ticks(told.begin, told.end):
        x = f"{_x(told, tick.moment):.2f}"
        SubElement(svg, "line", x1=x, x2=x, y1=str(_TOP - 12), y2=str(height - 36))
        for label, y in ((tick.time, height - 22), (tick.day, height - 8)):
            if label:
                _text(svg, "text", label, faint, x=x, y=str(y if tick.time else height - 22))
        if len(told.lines) >= _MANY:
            _text(svg, "text", tick.time or tick.day, faint, x=x, y=str(_TOP - 16))


def _line(svg: Element, told: Timeline, line: Line, top: int) -> None:
    group = SubElement(svg, "g")
    life = line.life
    _text(group, "title", f"{life.name} ({life.sandbox_id}) on {life.provider}")
    _text(group, "text", _shortened(visible(life.name)), x="20", y=str(top + 12))
    for stretch in line.stretches:
        x, end = _x(told, stretch.start), _x(told, stretch.end)
        bar = _rect(group, stretch.state.value, x, top, max(1.0, end - x), _BAR)
        _text(bar, "title", f"{stretch.state.value} from {_at(stretch.start)} {_upto(stretch.start, stretch.end)}")
    for mark in line.marks:
        dot = SubElement(
            group,
            "circle",
            {"class": mark.outcome.value},
            cx=f"{_x(told, mark.start):.2f}",
            cy=str(top + _BAR // 2),
            r="4" if len(line.marks) < _CROWD else "2.5",
        )
        how = mark.outcome.value.replace("_", " ")
        when = f"{_at(mark.start)} {_upto(mark.start, mark.end)}"
        _text(dot, "title", f"{mark.language} run {mark.execution_id}, {how}: {when}")


def _rect(parent: Element, kind: str, x: float, y: int, width: float, height: int) -> Element:
    x, width = round(x, 2), round(width, 2)
    return SubElement(parent, "rect", {"class": kind}, x=f"{x:g}", y=str(y), width=f"{width:g}", height=str(height))


def _shortened(name: str) -> str:
    """As much of a name as has room, by the width that its letters may have at most."""
    room = _LONGEST
    for taken, letter in enumerate(name):
        room -= (
            12.5 if letter in "MW@%" or ord(letter) > 0x2E7F else 10.0 if letter.isupper() or letter in "mw" else 7.7
        )
        if room < 0:
            return name[: max(1, taken - 1)] + "…"
    return name


def _cells(told: Timeline, line: Line) -> list[str]:
    life = line.life
    spent = {"active": 0.0, "paused": 0.0, "creating": 0.0}
    for stretch in line.stretches:
        spent[stretch.state.value] += ((stretch.end or told.end) - stretch.start).total_seconds()
    stopped = "-" if life.end is None else f"{_at(life.end)} ({life.stop_reason})"
    times = [duration(spent["active"]), duration(spent["paused"])]
    runs = str(len(line.marks))
    return [life.name, life.sandbox_id, life.user_id, life.provider, _at(life.start), stopped, *times, runs]


def _x(told: Timeline, moment: datetime | None) -> float:
    return _LEFT + told.place(moment) * (_RIGHT - _LEFT)


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _upto(start: datetime, end: datetime | None) -> str:
    return "until now" if end is None else f"for {duration((end - start).total_seconds())}"


def _summary(told: Timeline) -> str:
    if not told.lines:
        return f"There were no sandboxes up to {_at(told.end)} UTC."
    count, runs = len(told.lines), sum(len(line.marks) for line in told.lines)
    boxes = "1 sandbox" if count == 1 else f"{count} sandboxes"
    return f"{_period(told)}: {boxes}, {'1 run' if runs == 1 else f'{runs} runs'}"


def _period(told: Timeline) -> str:
    return f"{_at(told.begin)} to {_at(told.end)} UTC"


def _text(parent: Element, tag: str, text: str, more: dict[str, str] | None = None, **attributes: str) -> None:
    """A child with text. It is never empty: a reader of HTML would take an empty element for an open one."""
    SubElement(parent, tag, {**(more or {}), **attributes}).text = visible(text) or "-"
