-- Frozen once released: a change is a new file with the next number.

-- Code and output of runs, where they are kept: ciphertext only, beside the log and no part of it. A sandbox's data
-- key is wrapped by a master key that is not in here; deleting it makes what it sealed unreadable for good.
CREATE TABLE body_keys (
  key_id TEXT PRIMARY KEY,
  sandbox_id TEXT NOT NULL UNIQUE,
  tenant_id TEXT NOT NULL,
  wrapped_by TEXT NOT NULL,
  wrapped BLOB NOT NULL
);

CREATE TABLE bodies (
  sandbox_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('code', 'stdout', 'stderr')),
  key_id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  kept_at TEXT NOT NULL,
  sealed BLOB NOT NULL CHECK (length(sealed) <= 1048640),
  PRIMARY KEY (sandbox_id, execution_id, kind)
);

CREATE INDEX bodies_by_age ON bodies (kept_at);
