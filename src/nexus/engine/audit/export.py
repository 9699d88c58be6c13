"""The audit log for other programs: JSON Lines, CSV that no spreadsheet executes, and CloudEvents 1.0.

All three are pure functions from entries to pieces of text, one entry at a time.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from nexus.domain.events import Envelope
from nexus.domain.values import to_text
from nexus.engine.audit.journal import record
from nexus.engine.eventlog import sandbox_of

COLUMNS: Final = (
    "position",
    "event_id",
    "occurred_at",
    "recorded_at",
    "actor",
    "tenant_id",
    "agent_id",
    "origin",
    "command",
    "type",
    "schema_version",
    "sandbox_id",
    "correlation_id",
    "causation_id",
    "sentence",
    "data",
)
"""The keys of a record, in the order of the CSV's columns; `data` is JSON in one cell."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet may take for the beginning of a formula, the full-width signs too: OWASP, "CSV Injection"."""

TYPE_PREFIX: Final = "nexus."
"""Before an event's type in CloudEvents, where types of many sources meet."""


def json_lines(entries: Iterable[Envelope], installation: str) -> Iterator[str]:
    """One JSON object a line, in ASCII."""
    for envelope in entries:
        yield _json(record(envelope)) + "\n"


def csv_rows(entries: Iterable[Envelope], installation: str) -> Iterator[str]:
    """RFC 4180: a header, then one row an entry, with CRLF between them.

    A cell that a spreadsheet would calculate begins with an apostrophe instead, which it shows or hides but never
    executes.
    """
    yield _row(COLUMNS)
    for envelope in entries:
        values = record(envelope)
        values["data"] = _json(values["data"])
        yield _row(["" if values[name] is None else inert(str(values[name])) for name in COLUMNS])


def inert(cell: str) -> str:
    """The text, behind an apostrophe where it could be taken for a formula."""
    return "'" + cell if cell.startswith(_FORMULA) else cell


def cloudevents(entries: Iterable[Envelope], installation: str) -> Iterator[str]:
    """One CloudEvents 1.0 object in JSON a line."""
    for envelope in entries:
        yield _json(cloudevent(envelope, installation)) + "\n"


def cloudevent(envelope: Envelope, installation: str) -> dict[str, Any]:
    """One event as CloudEvents 1.0 has it: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md

    `sequence`, `recordedtime`, `correlationid` and `causationid` are documented extensions of that specification;
    the position is text there because its integers end at 2**31. Attributes without a value must not appear.
    """
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": envelope.event_id,
        "source": f"/nexus/{quote(installation, safe='')}",
        "type": TYPE_PREFIX + envelope.topic,
        "subject": sandbox_of(envelope) or envelope.originator_id,
        "time": to_text(envelope.occurred_at),
        "datacontenttype": "application/json",
        "sequence": None if envelope.position is None else f"{envelope.position:019d}",
        "recordedtime": None if envelope.recorded_at is None else to_text(envelope.recorded_at),
        "correlationid": envelope.correlation_id,
        "causationid": envelope.causation_id,
        "actor": envelope.actor,
        "tenantid": envelope.tenant_id,
        "agentid": envelope.agent_id,
        "origin": envelope.origin,
        "command": envelope.command,
        "schemaversion": envelope.schema_version,
    }
    present = {name: value for name, value in attributes.items() if value not in (None, "")}
    return {**present, "data": envelope.event.model_dump(mode="json")}


FORMATS: Final[Mapping[str, Callable[[Iterable[Envelope], str], Iterator[str]]]] = {
    "jsonl": json_lines,
    "csv": csv_rows,
    "cloudevents": cloudevents,
}
"""What can be exported: name → function of the entries and the installation's id."""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _row(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()
