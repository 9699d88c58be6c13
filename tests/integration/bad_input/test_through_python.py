"""Every row of bad input through `NexusFS`: the right exception, and nothing recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any, Final

import pytest

from nexus import LocalBackend, NexusFS
from nexus.domain.errors import (
    ConfigurationError,
    IdempotencyMismatch,
    IllegalTransition,
    InvalidInput,
    NameTaken,
    NexusError,
    NotFound,
    SandboxNotFound,
)
from nexus.domain.events import CommandRefused
from nexus.domain.policies import Limits
from nexus.domain.provider import Limits as ResourceLimits
from nexus.domain.refusals import REFUSALS
from nexus.testing import FakeProvider
from tests.integration.bad_input import cases
from tests.integration.cli import scripted
from tests.support.postgres import TestDatabase

LIMIT: Final = Limits()


@dataclass(frozen=True)
class Row:
    """A call that must be refused."""

    method: str
    given: dict[str, Any] = field(default_factory=dict)
    error: type[NexusError] = InvalidInput


def rows() -> dict[str, Row]:
    found: dict[str, Row] = {}

    def refuse(title: str, method: str, error: type[NexusError] = InvalidInput, /, **given: Any) -> None:
        assert title not in found
        found[title] = Row(method, given, error)

    def run(title: str, error: type[NexusError] = InvalidInput, /, **given: Any) -> None:
        refuse(title, "sandbox_run", error, **{"sandbox_id": "box", "language": "python", "code": "1", **given})

    for what, name in (cases.NAMES | cases.TEXT_OF_OTHER_TYPES).items():
        refuse(f"name: {what}", "sandbox_create", name=name)
    for what, number in (cases.NUMBERS_OF_OTHER_TYPES | {"object": object()}).items():
        refuse(f"ttl: {what}", "sandbox_create", name="new", ttl_minutes=number)
        refuse(f"longer ttl: {what}", "sandbox_extend", sandbox_id="box", ttl_minutes=number)
        run(f"timeout: {what}", timeout=number)
    refuse("longer ttl: None", "sandbox_extend", sandbox_id="box", ttl_minutes=None)
    refuse("ttl: beyond the maximum", "sandbox_create", name="new", ttl_minutes=LIMIT.max_ttl_minutes + 1)
    run("timeout: beyond the maximum", timeout=LIMIT.max_timeout + 1)
    for what, language in (cases.LANGUAGES | cases.TEXT_OF_OTHER_TYPES).items():
        run(f"language: {what}", language=language)
    for what, reference in (cases.REFERENCES | cases.TEXT_OF_OTHER_TYPES).items():
        error = SandboxNotFound if isinstance(reference, str) else InvalidInput
        for method in ("sandbox_status", "sandbox_pause", "sandbox_resume", "sandbox_stop"):
            refuse(f"{method}: {what}", method, error, sandbox_id=reference)
        run(f"sandbox_run: {what}", error, sandbox_id=reference)
        refuse(f"sandbox_extend: {what}", "sandbox_extend", error, sandbox_id=reference, ttl_minutes=5)
    for what, code in {
        "None": None, "number": 5, "list": ["print(1)"], "NUL": "a\0b", "NUL in bytes": b"\0",
        "bytearray": bytearray(b"1"),
        "lone surrogate": "print('\udcff')", "too large": "#" * (LIMIT.max_code_bytes + 1),
        "too large in UTF-8": "é" * LIMIT.max_code_bytes, "50 MB": "#" * (50 * 1024 * 1024),
    }.items():  # fmt: skip
        run(f"code: {what}", code=code)
    for what, labels in (
        {what: {name: "x"} for what, name in cases.LABEL_NAMES.items()}
        | {f"value: {what}": {"a": value} for what, value in cases.LABEL_VALUES.items()}
        | {
            "1,000 of them": {f"l{n}": "x" for n in range(1000)},
            "number as value": {"a": 1},
            "number as name": {1: "a"},
        }
        | {"text": "a=b", "list": [("a", "b")], "None as value": {"a": None}}
    ).items():
        refuse(f"label: {what}", "sandbox_create", name="new", labels=labels)
    for what, env in (
        {what: {name: "x"} for what, name in cases.VARIABLE_NAMES.items()}
        | {f"value: {what}": {"A": value} for what, value in cases.VARIABLE_VALUES.items()}
        | {"too many": {f"V{n}": "x" for n in range(129)}, "with '='": {"A=B": "x"}, "number as value": {"A": 1}}
        | {"text": "A=1", "list": ["A=1"], "bytes as name": {b"A": "1"}}
    ).items():
        refuse(f"variable: {what}", "sandbox_create", name="new", env=env)
        run(f"variable of a run: {what}", env=env)
    for what, key in (cases.KEYS | cases.TEXT_OF_OTHER_TYPES).items():
        if key is not None:
            refuse(f"key: {what}", "sandbox_create", name="new", idempotency_key=key)
    for what, template in (cases.TEMPLATES | cases.TEXT_OF_OTHER_TYPES).items():
        if template is not None:
            refuse(f"template: {what}", "sandbox_create", name="new", template_id=template)
            refuse(f"provider: {what}", "sandbox_create", name="new", provider=template)
    refuse("provider: unknown", "sandbox_create", ConfigurationError, name="new", provider="nowhere")
    for what, network in {"unknown": "host", "list": ["full"], "True": True}.items():
        refuse(f"network: {what}", "sandbox_create", name="new", network=network)
    for what, limits in {
        "negative memory": ResourceLimits(memory_mb=-1), "no memory": ResourceLimits(memory_mb=0),
        "NaN": ResourceLimits(cpus=nan), "infinity": ResourceLimits(cpus=inf), "no cpu": ResourceLimits(cpus=0),
        "True": ResourceLimits(processes=True), "text": ResourceLimits(disk_mb="9"),  # type: ignore[arg-type]
        "fraction": ResourceLimits(memory_mb=1.5), "dict": {"memory_mb": 5},  # type: ignore[arg-type]
    }.items():  # fmt: skip
        refuse(f"limits: {what}", "sandbox_create", name="new", limits=limits)
    refuse("name in use", "sandbox_create", NameTaken, name="box")
    refuse("key in use", "sandbox_create", IdempotencyMismatch, name="new", idempotency_key="k")
    run("stopped: run", IllegalTransition, sandbox_id="gone")
    run("paused: run", IllegalTransition, sandbox_id="asleep")
    refuse("stopped: pause", "sandbox_pause", IllegalTransition, sandbox_id="gone")
    refuse("stopped: resume", "sandbox_resume", IllegalTransition, sandbox_id="gone")
    refuse("stopped: extend", "sandbox_extend", IllegalTransition, sandbox_id="gone", ttl_minutes=5)
    run("another's", SandboxNotFound, sandbox_id="bobs")
    for path in ("", "/", "a\0b", "../../etc/passwd", "/../../etc/passwd", "a/../../../etc/passwd"):
        refuse(f"read: {path!r}", "read", path=path)
        refuse(f"write: {path!r}", "write", path=path, content=b"x")
    refuse("read: a folder", "read", NotFound, path="/folder")
    refuse("read: nothing", "read", NotFound, path="/none")
    refuse("read: a link that leads out", "read", path="/link")
    refuse("write: a link that leads out", "write", path="/link", content=b"x")
    return found


ROWS: Final = rows()


@pytest.fixture(scope="module")
def nx(tmp_path_factory: pytest.TempPathFactory, shared_database: TestDatabase | None) -> Iterator[NexusFS]:
    """One installation for all rows: none of them may change it."""
    folder = tmp_path_factory.mktemp("bad-input")
    site = folder / "site"
    scripted.install(site, folder / "cloud")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(site))
        for user in ("bob", "ann"):
            nexus = NexusFS(
                LocalBackend(folder / "files"),
                data_dir=str(folder),
                database_url=shared_database.application if shared_database else "",
                sandbox_provider="scripted",
                user_id=user,
                auto_cleanup=False,
            )
            if user == "bob":
                with nexus:
                    nexus.sandbox_create("bobs")
        with nexus:
            nexus.sandbox_create("box", idempotency_key="k")
            nexus.sandbox_create("asleep")
            nexus.sandbox_pause("asleep")
            nexus.sandbox_create("gone")
            nexus.sandbox_stop("gone")
            nexus.write("/folder/file", b"x")
            (folder / "files" / "link").symlink_to("/etc/passwd")
            yield nexus


@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused_and_nothing_is_recorded_but_a_decision(nx: NexusFS, name: str) -> None:
    row = ROWS[name]
    fake = nx.engine.providers.get("scripted")
    assert isinstance(fake, FakeProvider)
    head, calls = nx.engine.store.head(), len(fake.cloud.calls())
    method: Callable[..., Any] = getattr(nx, row.method)
    with pytest.raises(row.error) as caught:
        method(**row.given)
    assert type(caught.value) is row.error
    assert caught.value.message.isprintable()
    assert 0 < len(caught.value.message) < 500
    assert len(fake.cloud.calls()) == calls
    asked = row.method.startswith("sandbox_") and row.method != "sandbox_status"
    recorded = [event.event for event in nx.engine.store.read(head)]
    if asked and issubclass(row.error, REFUSALS):
        (refused,) = recorded
        assert isinstance(refused, CommandRefused)
        assert (refused.command, refused.error) == (row.method.removeprefix("sandbox_"), row.error.code)
        assert (refused.message + (refused.reference or "")).isprintable()
    else:
        assert recorded == []


def test_anothers_sandbox_answers_in_the_words_of_an_unknown_one(nx: NexusFS) -> None:
    def told(reference: str) -> tuple[type[BaseException], str, str]:
        with pytest.raises(NexusError) as caught:
            nx.sandbox_run(reference, "python", "1")
        return type(caught.value), caught.value.message.replace(reference, "…"), caught.value.hint

    assert told("bobs") == told("nobody")


def test_secrets_are_not_quoted(nx: NexusFS) -> None:
    for given in ({"env": {"TOKEN": "canary\0"}}, {"env": {"TOKEN": 5}}, {"env": {"bad name": "canary"}}):
        with pytest.raises(InvalidInput) as caught:
            nx.sandbox_create("new", **given)
        assert "canary" not in str(caught.value)


def test_a_setting_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    for settings in (
        {"user_id": "a\nb"}, {"tenant_id": "t" * 129}, {"max_timeout": 0}, {"default_ttl_minutes": 10**9},
        {"database_url": "mysql://u:canary@h/d"}, {"sweep_seconds": -1},
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            NexusFS(data_dir=str(tmp_path), auto_cleanup=False, **settings)
        assert "canary" not in str(caught.value)
