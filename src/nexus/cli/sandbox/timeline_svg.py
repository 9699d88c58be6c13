"""A timeline as a picture and as a page: one file each, without scripts, styles or pictures from elsewhere.

Both are built as trees and written by the XML library, so that no text in them can become markup; what XML or a
reader's eyes could not take is written as an escape first.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, tostring

from nexus.cli.terminal import visible
from nexus.cli.times import duration

if TYPE_CHECKING:
    from nexus.engine.timeline import Line, Timeline

_COLOURS: Final = {
    "creating": "#c9a227",
    "active": "#2f7d4f",
    "paused": "#a9b4c2",
    "succeeded": "#12301f",
    "failed": "#c0392b",
    "timed_out": "#d35400",
    "lost": "#8e44ad",
    "running": "#1f6feb",
}
_WIDTH: Final = 1200
_LEFT: Final = 220
_RIGHT: Final = 1140
_TOP: Final = 64
_ROW: Final = 26
_BAR: Final = 14
_TICKS: Final = 5
_LONGEST: Final = 28
"""Characters of a name beside its bar; the whole name is in the tooltip."""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = (
    "body{font:14px sans-serif;margin:2em;color:#1b1f24;background:#fff}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse;margin-top:2em}"
    "td,th{text-align:left;padding:.3em 1em;border-bottom:1px solid #d0d7de}"
)


def picture(told: Timeline) -> str:
    """An SVG document."""
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(_svg(told), encoding="unicode") + "\n"


def page(told: Timeline) -> str:
    """An HTML document, well-formed as XML too: the picture, and the same as a table."""
    html = Element("html", lang="en")
    head, body = SubElement(html, "head"), SubElement(html, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    _text(head, "title", "Sandbox timeline")
    _text(head, "style", _STYLE)
    _text(body, "h1", "Sandbox timeline")
    _text(body, "p", _period(told))
    body.append(_svg(told))
    table = SubElement(body, "table")
    titles = SubElement(table, "tr")
    for title in ("Sandbox", "Id", "User", "Provider", "Created", "Stopped", "Active", "Paused", "Runs"):
        _text(titles, "th", title)
    for line in told.lines:
        row = SubElement(table, "tr")
        for cell in _cells(told, line):
            _text(row, "td", cell)
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode") + "\n"


def _svg(told: Timeline) -> Element:
    height = _TOP + _ROW * len(told.lines) + 48
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
    SubElement(svg, "rect", width=str(_WIDTH), height=str(height), fill="#ffffff")
    _legend(svg)
    _axis(svg, told, height)
    for number, line in enumerate(told.lines):
        _line(svg, told, line, _TOP + _ROW * number)
    return svg


def _legend(svg: Element) -> None:
    for number, (word, colour) in enumerate(_COLOURS.items()):
        x = 20 + 140 * number
        SubElement(svg, "rect", x=str(x), y="12", width="12", height="12", fill=colour)
        prefix = "" if word in ("creating", "active", "paused") else "run "
        _text(svg, "text", prefix + word.replace("_", " "), x=str(x + 18), y="22", fill="#1b1f24")


def _axis(svg: Element, told: Timeline, height: int) -> None:
    for number in range(_TICKS):
        share = number / (_TICKS - 1)
        x = f"{_LEFT + share * (_RIGHT - _LEFT):.2f}"
        SubElement(svg, "line", x1=x, x2=x, y1=str(_TOP - 12), y2=str(height - 36), stroke="#d0d7de")
        moment = told.begin + share * (told.end - told.begin)
        _text(svg, "text", _at(moment), {"text-anchor": "middle"}, x=x, y=str(height - 16), fill="#57606a")


def _line(svg: Element, told: Timeline, line: Line, top: int) -> None:
    group = SubElement(svg, "g")
    life = line.life
    _text(group, "title", f"{life.name} ({life.sandbox_id}) on {life.provider}")
    name = life.name if len(life.name) <= _LONGEST else life.name[: _LONGEST - 1] + "…"
    _text(group, "text", name, x="20", y=str(top + 12), fill="#1b1f24")
    for stretch in line.stretches:
        x, end = _x(told, stretch.start), _x(told, stretch.end)
        bar = SubElement(
            group,
            "rect",
            x=f"{x:.2f}",
            y=str(top),
            width=f"{max(1.0, end - x):.2f}",
            height=str(_BAR),
            fill=_COLOURS[stretch.state.value],
        )
        _text(bar, "title", f"{stretch.state.value} from {_at(stretch.start)} {_upto(stretch.start, stretch.end)}")
    for mark in line.marks:
        dot = SubElement(
            group,
            "circle",
            cx=f"{_x(told, mark.start):.2f}",
            cy=str(top + _BAR // 2),
            r="4",
            fill=_COLOURS[mark.outcome.value],
            stroke="#ffffff",
        )
        how = mark.outcome.value.replace("_", " ")
        when = f"{_at(mark.start)} {_upto(mark.start, mark.end)}"
        _text(dot, "title", f"{mark.language} run {mark.execution_id}, {how}: {when}")


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


def _period(told: Timeline) -> str:
    return f"{_at(told.begin)} to {_at(told.end)} UTC"


def _text(parent: Element, tag: str, text: str, more: dict[str, str] | None = None, **attributes: str) -> None:
    """A child with text. It is never empty: a reader of HTML would take an empty element for an open one."""
    SubElement(parent, tag, {**(more or {}), **attributes}).text = visible(text) or "-"
