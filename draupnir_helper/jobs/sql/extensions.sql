-- Run in template0: create the extensions in :extensions again, to see the objects that their scripts create. The
-- transaction is never committed. If a version has no script any more, the available version is used.
\set ON_ERROR_STOP off
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname) FROM pg_extension
\gexec
-- If an extension stayed, members that the data added would look legitimate. A stale row with a reused oid has the same effect.
SELECT EXISTS (SELECT FROM pg_extension) AS stays
\gset
\if :stays
\set ON_ERROR_STOP on
SELECT 'template0 keeps an extension'::integer;
\endif
DELETE FROM pg_depend WHERE refclassid = 'pg_extension'::regclass;
SELECT step
  FROM ROWS FROM (jsonb_to_recordset(:'extensions') AS (name text, version text, schema text))
       WITH ORDINALITY AS e(name, version, schema, place),
       LATERAL (VALUES (1, format('CREATE SCHEMA IF NOT EXISTS %I', schema)),
                       (2, format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I VERSION %L', name, schema, version)),
                       (3, format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I CASCADE', name, schema)),
                       (4, format('CREATE EXTENSION IF NOT EXISTS %I CASCADE', name))) AS s(number, step)
 ORDER BY place, number
\gexec
