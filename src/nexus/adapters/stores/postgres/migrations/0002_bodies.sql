-- Frozen once released: a change is a new file with the next number.

-- Code and output of runs, where they are kept: ciphertext only, beside the log and no part of it. A sandbox's data
-- key is wrapped by a master key that is not in here; deleting it makes what it sealed unreadable for good.
CREATE TABLE body_keys (
  key_id text COLLATE "C" PRIMARY KEY,
  sandbox_id text COLLATE "C" NOT NULL UNIQUE,
  tenant_id text COLLATE "C" NOT NULL,
  wrapped_by text NOT NULL,
  wrapped bytea NOT NULL
);

CREATE TABLE bodies (
  sandbox_id text COLLATE "C" NOT NULL,
  execution_id text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('code', 'stdout', 'stderr')),
  -- A body that comes after its key was erased is refused, and one that is being stored meanwhile goes with the key.
  key_id text COLLATE "C" NOT NULL REFERENCES body_keys ON DELETE CASCADE,
  tenant_id text COLLATE "C" NOT NULL,
  kept_at text COLLATE "C" NOT NULL,
  sealed bytea NOT NULL CHECK (octet_length(sealed) <= 1048640),
  PRIMARY KEY (sandbox_id, execution_id, kind)
);
-- It does not get smaller: compressing it again only costs.
ALTER TABLE bodies ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE INDEX bodies_by_age ON bodies (kept_at);
CREATE INDEX bodies_by_key ON bodies (key_id);

-- As the views: a session sees what its scope shows, and one that never set a scope sees nothing.
ALTER TABLE body_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY bodies_tenancy ON body_keys USING (
  current_setting('nexus.scope', true) = 'all' OR current_setting('nexus.scope', true) = 'tenant:' || tenant_id
);
ALTER TABLE bodies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY bodies_tenancy ON bodies USING (
  current_setting('nexus.scope', true) = 'all' OR current_setting('nexus.scope', true) = 'tenant:' || tenant_id
);
