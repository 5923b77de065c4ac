-- Run in every database, before the script and after it. Event triggers first, lest one sees what follows: their
-- functions come to belong to draupnir, and the bootstrap superuser would call them in CREATE EXTENSION.
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
SELECT format('DROP USER MAPPING FOR %s SERVER %I', CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END, srvname)
  FROM pg_user_mapping JOIN pg_foreign_server s ON s.oid = umserver LEFT JOIN pg_authid r ON r.oid = umuser
\gexec
-- What sessions left when the old server crashed, and what only looks like it. Nobody else is connected to the database.
SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace
 WHERE nspname ~ '^pg_(toast_)?temp_' AND oid <> pg_my_temp_schema()
\gexec
-- A reader of such a table reads a file as the server does; Postgres checks only who has set its name.
SELECT format('DROP FOREIGN TABLE %s CASCADE', ftrelid::regclass) FROM pg_foreign_table
 WHERE EXISTS (SELECT FROM unnest(ftoptions) AS option WHERE option ~ '^(filename|program)=')
\gexec
-- From here on the counters tell what the script's session writes, and not what was just rolled back.
SELECT current_setting('server_version_num')::int >= 150000 AS has_counters
\gset
\if :has_counters
SELECT pg_stat_force_next_flush() AS flushed
\gset
SELECT pg_stat_reset() AS reset
\gset
\endif
