-- Frozen once released: a change is a new file with the next number.

CREATE TABLE events (
  -- (transaction id + epoch) << 12 | place in the transaction, made by the statement that inserts: see ADR 0030.
  position bigint PRIMARY KEY,
  event_id text COLLATE "C" NOT NULL UNIQUE,
  originator_id text COLLATE "C" NOT NULL,
  originator_version bigint NOT NULL CHECK (originator_version > 0),
  topic text COLLATE "C" NOT NULL,
  schema_version integer NOT NULL,
  state bytea NOT NULL,
  -- Times are text, always 32 characters, in UTC: the audit's hashes are made of it, whatever a session's settings.
  occurred_at text COLLATE "C" NOT NULL,
  recorded_at text COLLATE "C" NOT NULL
    DEFAULT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
  actor text NOT NULL,
  tenant_id text NOT NULL,
  agent_id text,
  command text NOT NULL,
  correlation_id text NOT NULL,
  causation_id text,
  origin text NOT NULL,
  UNIQUE (originator_id, originator_version)
);

CREATE FUNCTION refuse_to_change_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_events();
-- Also in a session that replays a replica's changes, where ordinary triggers are silent.
ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_append_only;

CREATE TABLE snapshots (
  originator_id text COLLATE "C" PRIMARY KEY,
  originator_version bigint NOT NULL,
  schema_version integer NOT NULL,
  state bytea NOT NULL
);

CREATE TABLE projection_positions (
  projection text COLLATE "C" PRIMARY KEY,
  position bigint NOT NULL
);

CREATE TABLE installation (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Added to transaction ids where they become positions: grows when the log moves to a cluster that counted less far.
  epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
  -- The role that `nexus migrate --application-role` named: new tables are granted to it, too.
  application_role text
);

-- Whether the sandbox of a row that has no tenant of its own may be seen. Looks the table up by name each time, so
-- that a rebuilt one can take its place.
CREATE FUNCTION sandbox_is_visible(id text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN EXISTS (SELECT FROM sandboxes WHERE sandbox_id = id);
END
$$;
