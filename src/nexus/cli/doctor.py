"""`nexus doctor`: what works here, what does not, and what to install."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

import nexus
from nexus.cli.options import common
from nexus.cli.session import Session, pass_session
from nexus.cli.terminal import visible
from nexus.domain.errors import ConfigurationError, NexusError, SchemaMismatch
from nexus.domain.provider import Finding

_EXTRAS: Final = ("docker", "e2b", "modal")
_LONG_TRANSACTION: Final = 3.0
"""Seconds after which a transaction that readers wait for is worth telling of."""


@click.command()
@common
@pass_session
def doctor(session: Session) -> int:
    """Check this installation and say what to install.

    Exits with 0 when everything that the default provider needs is there, else with 1. What only other providers need
    is shown and does not count.
    """
    findings = list(_check(session))
    healthy = all(finding.ok for finding in findings if finding.required)
    output = session.output
    if output.json:
        output.value({"ok": healthy, "versions": _versions(), "findings": [_as_dict(finding) for finding in findings]})
        return 0 if healthy else 1
    if not output.quiet:
        output.line(", ".join(f"{name} {version}" for name, version in _versions().items()))
    for finding in findings:
        if output.quiet and (finding.ok or not finding.required):
            continue
        mark = "ok" if finding.ok else ("MISSING" if finding.required else "note")
        output.line(f"{mark:8}{finding.check}: {finding.detail}")
        if finding.hint and not finding.ok:
            output.line(f"        → {visible(finding.hint)}")
    return 0 if healthy else 1


def _check(session: Session) -> Iterator[Finding]:
    try:
        settings = session.settings
    except NexusError as error:
        yield Finding("settings", False, error.message, error.hint)
        return
    yield Finding("settings", True, str(settings.file or "no file; environment and defaults"))
    yield _data_folder(settings.data_dir)
    yield from _store(session)
    yield from _capture(session)
    yield from _providers(session)


def _data_folder(folder: Path) -> Finding:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        return Finding(
            "data folder",
            False,
            f"{folder} cannot be written: {error.strerror}",
            "Make it writable, free some space, or set NEXUS_DATA_DIR to another folder.",
        )
    free = os.statvfs(there)
    megabytes = free.f_bavail * free.f_frsize // (1024 * 1024)
    state = f"{folder}, {megabytes} MiB free" if there == folder else f"{folder} will be made at first use"
    return Finding("data folder", True, state)


def _store(session: Session) -> Iterator[Finding]:
    from nexus.engine.wiring import is_postgres, store_path

    try:
        if is_postgres(session.settings):
            yield Finding("store", True, f"Postgres, last position {session.store.head()}")
            yield from _readers(session)
        else:
            path = store_path(session.settings)
            if not path.exists():
                yield Finding("store", True, f"{path} will be made at first use")
                return
            yield Finding("store", True, f"{path}, last position {session.store.head()}")
        yield from _read_models(session)
    except NexusError as error:
        yield Finding("store", False, error.message, error.hint)


def _readers(session: Session) -> Iterator[Finding]:
    """On Postgres a transaction that stays open anywhere in the server holds everybody's reading back."""
    from nexus.adapters.stores.postgres import PostgresStore

    store = session.store
    assert isinstance(store, PostgresStore)
    events, blockers = store.held_back()
    slow = [one for one in blockers if one.seconds is None or one.seconds > _LONG_TRANSACTION]
    if not slow:
        yield Finding("readers", True, "nothing holds them back")
    for one in slow:
        yield Finding(
            "readers",
            False,
            f"{events} events cannot be read yet, because of {one}",
            f"Let it end, or end it: {one.remedy}. A limit such as idle_in_transaction_session_timeout prevents it.",
            required=False,
        )


def _read_models(session: Session) -> Iterator[Finding]:
    from nexus.engine.wiring import is_postgres
    from nexus.projections.positions import require_prepared
    from nexus.projections.projector import Projector

    if is_postgres(session.settings):  # the embedded store brings them up to date by itself
        try:
            require_prepared(session.store.views)
        except SchemaMismatch as error:
            yield Finding("read models", False, error.message, error.hint)
            return
    for one in Projector(session.store).status():
        if one.quarantined:
            yield Finding(
                f"read model {one.name}",
                False,
                f"leaves {len(one.quarantined)} aggregates alone",
                "Look at them with `nexus projections quarantine`.",
                required=False,
            )
        elif one.kind == "following":
            behind = "up to date" if not one.lag else f"{one.lag} events behind; a worker, or who reads it, catches up"
            yield Finding(f"read model {one.name}", True, behind)


def _capture(session: Session) -> Iterator[Finding]:
    """What is kept of code and output, and whether it can be: the key itself is never shown."""
    from nexus.engine.wiring import is_postgres, keeping, store_path

    settings = session.settings
    days = f"for {settings.capture_days} days" if settings.capture_days else "until they are erased"
    state = f"code and output of new sandboxes are {'kept ' + days if settings.capture else 'not kept by default'}"
    try:
        if is_postgres(settings) or store_path(settings).exists():
            bodies = session.store.bodies
            stock = bodies.stock()
            state += f"; {stock.executions} runs of {stock.keys} sandboxes are, {stock.size // 1024} KiB"
            if settings.capture or stock.keys:
                # Looks for the key as a reader does: only what is about to seal something may make one.
                keys = keeping(settings, bodies).master(False)
                state += f", under master key {keys.name}"
    except ConfigurationError as error:
        made = settings.capture and not is_postgres(settings) and not stock.keys and not settings.capture_key
        if made and not settings.capture_key_file.exists():
            yield Finding("capture", True, f"{state}; its key will be made at first use")
        else:
            yield Finding("capture", False, f"{state}; {error.message}", error.hint, required=settings.capture)
        return
    except NexusError as error:
        yield Finding("capture", False, error.message, error.hint, required=False)
        return
    yield Finding("capture", True, state)


def _providers(session: Session) -> Iterator[Finding]:
    registry = session.registry
    default: str | None = None
    try:
        default = registry.default()
        registry.get(default)
        yield Finding("default provider", True, default)
    except ConfigurationError as error:
        yield Finding("default provider", False, error.message, error.hint)
    for name in registry.names():
        needed = name == default
        if name in _EXTRAS and find_spec(name) is None:
            yield Finding(name, False, "its extra is not installed", _install(name), needed)
            continue
        try:
            findings = registry.get(name).diagnose()
        except ConfigurationError as error:
            yield Finding(name, False, error.message, error.hint, needed)
            continue
        for finding in findings:
            yield Finding(
                f"{name}: {finding.check}", finding.ok, finding.detail, finding.hint, needed and finding.required
            )


def _install(extra: str) -> str:
    return f"pip install 'nexus-sandbox[{extra}]'"


def _versions() -> dict[str, str]:
    found = {"nexus": nexus.__version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in ("eventsourcing", "pydantic", "psycopg", *_EXTRAS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "ok": finding.ok,
        "required": finding.required,
        "detail": finding.detail,
        "hint": finding.hint,
    }
