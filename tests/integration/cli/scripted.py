"""A provider whose programs do what their code says in a few words, and the package that announces it to Nexus.

Code is lines of `out TEXT`, `err TEXT`, `hex 1b5b`, `sleep SECONDS`, `exit N`, `flood BYTES`, `raise NAME`; anything
else is echoed.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

from nexus.domain import errors
from nexus.domain.provider import OUTPUT_CAP, Capabilities
from nexus.testing import FakeCloud, FakeProvider, FakeRun, Outcome
from nexus.testing.behaviour import echo

_PACKAGE = """\
from pathlib import Path
from tests.integration.cli.scripted import provider

def make(settings):
    return provider(Path({folder!r}))
"""


def behave(run: FakeRun) -> Outcome:
    """The behaviour of every program here."""
    lines = (run.request.code or b"").decode(errors="replace").splitlines()
    verbs: dict[str, Callable[[str], object]] = {
        "out": lambda text: run.emit("stdout", text.encode() + b"\n"),
        "err": lambda text: run.emit("stderr", text.encode() + b"\n"),
        "hex": lambda text: run.emit("stdout", bytes.fromhex(text)),
        "flood": lambda text: run.emit("stdout", b"x" * int(text)),
        "sleep": lambda text: run.wait(float(text)),
        "raise": _raise,
        "env": lambda name: run.emit("stdout", dict(run.request.env).get(name, "unset").encode()),
        "stdin": lambda _: run.emit("stdout", run.request.stdin),
        "exit": lambda _: None,
    }
    words = [line.partition(" ") for line in lines]
    if not words or any(verb not in verbs for verb, _, _ in words):
        return echo(run)
    for verb, _, rest in words:
        verbs[verb](rest)
        if verb == "exit":
            return Outcome(int(rest), signal=int(rest) - 128 if int(rest) > 128 else None)
    return Outcome()


def _raise(name: str) -> None:
    kind = getattr(errors, name, None) or getattr(builtins, name)
    raise kind(f"the provider says {name}")


def provider(folder: Path | None = None, capabilities: Capabilities | None = None) -> FakeProvider:
    """`folder` keeps its sandboxes for other processes."""
    return FakeProvider(
        FakeCloud(folder), name="scripted", behaviour=behave, capabilities=capabilities or Capabilities(pause="memory")
    )


def install(site: Path, folder: Path) -> None:
    """Make a folder for PYTHONPATH from which any Nexus process finds the provider by its entry point."""
    site.mkdir()
    (site / "scripted_provider.py").write_text(_PACKAGE.format(folder=str(folder)))
    info = site / "scripted_provider-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-provider\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nexus.providers]\nscripted = scripted_provider:make\n")


FLOOD = OUTPUT_CAP + 4096
