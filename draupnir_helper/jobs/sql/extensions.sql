-- Run in template0: make the extensions that :extensions lists anew, to see what their scripts make. The transaction is
-- never committed. A version that has no script any more is seen by the one that has.
\set ON_ERROR_STOP off
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT format('DROP EXTENSION IF EXISTS %I CASCADE', extname) FROM pg_extension
\gexec
-- One that stays would vouch for members that the data gave it. So would a row that waits for the oid of a new one.
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
