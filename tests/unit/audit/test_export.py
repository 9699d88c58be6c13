"""The audit log for other programs: what each format promises to its readers."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from nexus.domain import events as ev
from nexus.domain.values import from_text
from nexus.engine.audit.export import COLUMNS, FORMATS, cloudevent, inert
from nexus.engine.audit.journal import record
from tests.unit.domain import story

INSTALLATION = "5b2f/odd installation"


def entry(event: ev.Event, **changes: Any) -> ev.Envelope:
    whole = replace(story.envelope(event, 3), position=17, recorded_at=story.at(0.5), causation_id="cause")
    return replace(whole, **changes)


def told(form: str, *entries: ev.Envelope) -> str:
    return "".join(FORMATS[form](entries, INSTALLATION))


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


DRIFT = ev.DriftObserved(kind="restarted", detail='said "no",\r\nthen ü\u2028=1+1')


def test_lines_hold_whole_entries_in_ascii() -> None:
    entries = [entry(DRIFT), entry(story.stopped(), position=18)]
    text = told("jsonl", *entries)
    assert text.isascii()
    assert [json.loads(line) for line in text.splitlines()] == [record(one) for one in entries]
    assert tuple(record(entries[0])) == COLUMNS


def test_a_table_holds_the_same_in_cells() -> None:
    (row,) = table(told("csv", entry(DRIFT, agent_id=None)))
    assert tuple(row) == COLUMNS
    wanted = record(entry(DRIFT))
    assert json.loads(row.pop("data")) == wanted.pop("data")
    assert row == {name: "" if value is None else str(value) for name, value in wanted.items()}


def test_a_table_without_entries_has_its_header() -> None:
    assert told("csv") == ",".join(COLUMNS) + "\r\n"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_is_a_formula(first: str) -> None:
    hostile = f"{first}HYPERLINK(1)"
    assert inert(hostile) == "'" + hostile
    assert inert("x" + hostile) == "x" + hostile
    places = ("actor", "tenant_id", "agent_id", "origin", "command", "correlation_id")
    event = entry(DRIFT, **dict.fromkeys(places, hostile))
    (row,) = table(told("csv", event))
    for name in places:
        assert row[name] == "'" + hostile
    assert not [cell for cell in row.values() if cell.startswith(first)]


def test_cloudevents_are_what_the_specification_says() -> None:
    found = json.loads(told("cloudevents", entry(DRIFT, agent_id="bot")))
    assert found == {
        "specversion": "1.0",
        "id": f"{3:032x}",
        "source": "/nexus/5b2f%2Fodd%20installation",
        "type": "nexus.sandbox.drift_observed",
        "subject": story.SANDBOX,
        "time": "2030-01-01T12:00:00.000000+00:00",
        "datacontenttype": "application/json",
        "sequence": "0000000000000000017",
        "recordedtime": "2030-01-01T12:00:30.000000+00:00",
        "correlationid": "c",
        "causationid": "cause",
        "actor": "user:ann",
        "tenantid": "default",
        "agentid": "bot",
        "origin": "python@host:1",
        "command": "test",
        "schemaversion": 1,
        "data": {"kind": "restarted", "detail": DRIFT.detail, "incarnation": None},
    }


def test_cloudevents_leave_out_what_they_do_not_have() -> None:
    found = cloudevent(entry(DRIFT, causation_id=None, agent_id=None, command="", position=None), INSTALLATION)
    assert not {"causationid", "agentid", "command", "sequence"} & set(found)
    for name, value in found.items():
        assert re.fullmatch("[a-z0-9]{1,20}", name), "the specification's names of attributes"
        assert name == "data" or isinstance(value, str | int)
    assert isinstance(from_text(found["time"]), datetime)


def test_a_claim_is_about_its_sandbox() -> None:
    claim = entry(ev.NameClaimed(name="box", sandbox_id=story.SANDBOX), originator_id="name-x")
    assert cloudevent(claim, INSTALLATION)["subject"] == story.SANDBOX
    unread = entry(ev.Unread(stored_topic="new", stored_version=9, reason="unknown"), originator_id="other-x")
    assert cloudevent(unread, INSTALLATION)["subject"] == "other-x"
    assert json.loads(told("jsonl", unread))["type"] == "new"
