-- Run in every database, before anything is deleted from a catalog. A rule or trigger on a catalog can turn our DELETE into
-- a no-op without an error. initdb creates no rules or triggers on catalogs.
SET allow_system_table_mods = on;
SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass)
  FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class
 WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
\gexec
SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
  FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
 WHERE relnamespace = 'pg_catalog'::regnamespace AND NOT tgisinternal
\gexec
RESET allow_system_table_mods;
