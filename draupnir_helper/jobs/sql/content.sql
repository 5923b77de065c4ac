-- Run in every database after ownership.sql, in its session: return whether the database has tables of its own.
SELECT EXISTS (
  SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
   WHERE relkind IN ('r', 'p', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
     AND nspname !~ '^pg_(toast_)?temp_'
     AND ('pg_class'::regclass::oid, c.oid) NOT IN (SELECT classid, objid FROM extension_member));
