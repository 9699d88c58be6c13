"""Headless Chromium from Debian's package: what a page looks like, what it says, and what it asks of others.

No name is resolved while it runs, so nothing that it or a page would ask leaves the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

INSTALL_HINT = "apt-get install -y --no-install-recommends chromium"
PATIENCE = 90.0

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--enable-logging=stderr",
]
_ITS_OWN = (".google.com", ".googleapis.com")
"""Whom the browser itself would ask, whatever the page."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Seen:
    """How a page was read."""

    dom: str
    console: list[str]
    """What scripts, and the browser about the page, said."""
    asked: list[str]
    """Addresses that the page wanted something from."""


def read(page: Path) -> Seen:
    """Open a file and let it load."""
    with tempfile.TemporaryDirectory(prefix="nexus-browser-") as folder:
        log = Path(folder) / "net.json"
        out, err = _run(folder, f"--log-net-log={log}", "--dump-dom", page.as_uri())
        addresses = re.findall(r'"url":"(\w+://[^"]*)"', log.read_text())
    console = re.findall(r"CONSOLE:\d+\] (.*)", err)
    asked = {address for address in addresses if not (urlsplit(address).hostname or "").endswith(_ITS_OWN)}
    return Seen(out, console, sorted(asked))


def photograph(page: Path, width: int, height: int, *, dark: bool = False) -> Picture:
    """Open a file and take a picture of its upper left part."""
    with tempfile.TemporaryDirectory(prefix="nexus-browser-") as folder:
        target = Path(folder) / "picture.png"
        more = ["--force-dark-mode=1"] if dark else []
        _run(folder, *more, f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri())
        return Picture(target.read_bytes())


def _run(folder: str, *options: str) -> tuple[str, str]:
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError(f"chromium is not installed; install it with: {INSTALL_HINT}")
    command = [program, *_OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile"]
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "HOME": folder, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, err
    return out, err


class Picture:
    """The pixels of a PNG file with 8 bits per colour, with or without transparency, as Chromium writes it."""

    def __init__(self, png: bytes) -> None:
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        data, at = b"", 8
        while at < len(png):
            size, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
            body = png[at + 8 : at + 8 + size]
            if kind == b"IHDR":
                self.width, self.height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
                assert body[8] == 8
                self._bytes = {2: 3, 6: 4}[body[9]]
            data += body if kind == b"IDAT" else b""
            at += 12 + size
        self._rows = list(self._unfiltered(zlib.decompress(data)))

    def _unfiltered(self, data: bytes) -> list[bytearray]:
        """PNG (second edition), 9.2: each byte is told by how it differs from its neighbours."""
        length, step, rows = self.width * self._bytes, self._bytes, []
        above = bytearray(length)
        for number in range(self.height):
            start = number * (length + 1)
            how, row = data[start], bytearray(data[start + 1 : start + 1 + length])
            for at in range(length if how else 0):
                left = row[at - step] if at >= step else 0
                corner = above[at - step] if at >= step else 0
                row[at] = (row[at] + _predicted(how, left, above[at], corner)) & 0xFF
            rows.append(row)
            above = row
        return rows

    def colours(self, left: int, top: int, right: int, bottom: int) -> Counter[Colour]:
        """How many pixels of each colour there are in a part."""
        found: Counter[Colour] = Counter()
        for row in self._rows[top:bottom]:
            for at in range(left * self._bytes, min(right, self.width) * self._bytes, self._bytes):
                found[row[at], row[at + 1], row[at + 2]] += 1
        return found


def _predicted(how: int, left: int, up: int, corner: int) -> int:
    if how == 1:
        return left
    if how == 2:
        return up
    if how == 3:
        return (left + up) // 2
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner
