-- Run in every database, before the script and after it. Event triggers go first, so that the statements below do not fire
-- them. They must stay disabled: draupnir will own their functions, and the bootstrap superuser would call those in CREATE
-- EXTENSION.
SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger WHERE evtenabled <> 'D'
\gexec
SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xact()
 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
\gexec
SELECT statement FROM pg_subscription s,
       LATERAL (VALUES (1, format('ALTER SUBSCRIPTION %I DISABLE', subname)),
                       (2, format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname)),
                       (3, format('DROP SUBSCRIPTION %I', subname))) AS steps(step, statement)
 WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY s.oid, step
\gexec
-- Sessions of a crashed server leave temporary schemas, and others may look the same. No other session is connected.
SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
 WHERE nspname ~ '^pg_(toast_)?temp_' AND oid <> pg_my_temp_schema()
\gexec
CREATE TEMPORARY TABLE statement AS
  SELECT format('DROP USER MAPPING FOR %s SERVER %I', CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END, srvname) AS text
    FROM pg_user_mapping JOIN pg_foreign_server s ON s.oid = umserver LEFT JOIN pg_authid r ON r.oid = umuser;
\ir execute.sql
-- These tables read a file with the rights of the server. Postgres checks only the role that set the file name.
SELECT format('DROP FOREIGN TABLE %s CASCADE', ftrelid::regclass) FROM pg_foreign_table
 WHERE EXISTS (SELECT FROM unnest(ftoptions) AS option WHERE option ~ '^(filename|program)=')
\gexec
-- Reset the counters, so that they show only the script's writes, and not the rollbacks above.
SELECT current_setting('server_version_num')::int >= 150000 AS has_counters
\gset
\if :has_counters
SELECT pg_stat_force_next_flush() AS flushed
\gset
SELECT pg_stat_reset() AS reset
\gset
\endif
