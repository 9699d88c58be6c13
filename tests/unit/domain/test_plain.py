"""Payloads that are not validated again say what validated ones say; what is not as it should be is refused alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nexus.domain import encoding
from nexus.domain import events as ev
from nexus.domain.errors import UnreadableEvent
from nexus.domain.plain import plain
from tests.unit.domain.story import run_finished, run_started
from tests.unit.domain.test_golden import STREAMS, stored

WELL = {ev.SandboxLost.TOPIC: b'{"detail": "gone"}', ev.KeyClaimed.TOPIC: b'{"sandbox_id": "a", "fingerprint": "b"}'}


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_it_says_what_decoding_says(path: Path) -> None:
    for line in stored(path):
        state = json.dumps(line["payload"]).encode()
        event = encoding.decode(line["topic"], line["version"], state)
        found = {name: value for name, (value, _) in plain(line["topic"], line["version"], [state] * 2).items()}
        assert type(event).model_validate_json(json.dumps(found, default=str)) == event


@pytest.mark.parametrize("event", [run_started(), run_finished()], ids=lambda event: type(event).__name__)
def test_it_takes_no_detour_for_what_this_version_wrote(event: ev.Event) -> None:
    found = plain(event.TOPIC, event.VERSION, [encoding.encode(event)])
    assert found == {name: (value,) for name, value in event.model_dump(mode="json").items()}


@pytest.mark.parametrize(
    ("topic", "version", "state"),
    [
        ("sandbox.teleported", 1, b"{}"),
        (ev.SandboxLost.TOPIC, 99, b"{}"),
        (ev.SandboxLost.TOPIC, 1, b"{}"),
        (ev.SandboxLost.TOPIC, 1, b"[]"),
        (ev.SandboxLost.TOPIC, 1, b"{"),
        (ev.KeyClaimed.TOPIC, 1, b'{"sandbox_id": "a", "fingerprint": "b", "more": 1}'),
        (ev.KeyClaimed.TOPIC, 1, b'{"sandbox_id": "a", "fingerprint": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ],
)
def test_what_cannot_be_read_is_refused(topic: str, version: int, state: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        encoding.decode(topic, version, state)
    with pytest.raises(UnreadableEvent):
        plain(topic, version, [state])
    if topic in WELL:
        with pytest.raises(UnreadableEvent):
            plain(topic, version, [WELL[topic], state])
