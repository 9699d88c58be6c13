#!/bin/sh
# Makes the two roles in an empty server: one that owns the tables and migrates them, one that may only use them.
# The image of Postgres runs it once, when it makes its data folder.
set -eu
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv owner_password NEXUS_OWNER_PASSWORD
\getenv app_password NEXUS_APP_PASSWORD
CREATE ROLE nexus_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE nexus_app LOGIN PASSWORD :'app_password';
-- Lets `nexus doctor` say how long another session has held readers up, and what it is doing.
GRANT pg_read_all_stats TO nexus_app;
ALTER SCHEMA public OWNER TO nexus_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SQL
