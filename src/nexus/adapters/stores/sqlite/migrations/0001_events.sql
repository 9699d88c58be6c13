-- Frozen once released: a change is a new file with the next number.

CREATE TABLE events (
  -- AUTOINCREMENT: a position is never given twice, not even after a crash or by VACUUM.
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL UNIQUE,
  originator_id TEXT NOT NULL,
  originator_version INTEGER NOT NULL CHECK (originator_version > 0),
  topic TEXT NOT NULL,
  schema_version INTEGER NOT NULL,
  state BLOB NOT NULL,
  occurred_at TEXT NOT NULL,
  recorded_at TEXT NOT NULL,
  actor TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  agent_id TEXT,
  command TEXT NOT NULL,
  correlation_id TEXT NOT NULL,
  causation_id TEXT,
  origin TEXT NOT NULL,
  UNIQUE (originator_id, originator_version)
);

CREATE TRIGGER events_are_not_updated BEFORE UPDATE ON events
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

-- INSERT OR REPLACE deletes the row in its way without asking a delete trigger.
CREATE TRIGGER events_are_not_replaced BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
  OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
  OR EXISTS (SELECT 1 FROM events WHERE originator_id = NEW.originator_id AND originator_version = NEW.originator_version)
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TABLE snapshots (
  originator_id TEXT PRIMARY KEY,
  originator_version INTEGER NOT NULL,
  schema_version INTEGER NOT NULL,
  state BLOB NOT NULL
);

CREATE TABLE projection_positions (
  projection TEXT PRIMARY KEY,
  position INTEGER NOT NULL
);

CREATE TABLE installation (
  id TEXT PRIMARY KEY,
  created_at TEXT NOT NULL
);
