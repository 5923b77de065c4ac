-- Run in every database after the script, with :filenodes from before it: what a materialized view still has in the same
-- file is as old as the backup, and shows what the script has changed. One that cannot be filled here is left without rows:
-- it may read a foreign table. Ordered by age, since one may read another.
CREATE TEMPORARY VIEW stale AS
  SELECT c.oid, format('REFRESH MATERIALIZED VIEW %I.%I', nspname, relname) AS refresh
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
   WHERE relkind = 'm' AND relispopulated AND relfilenode = ANY (:'filenodes'::oid[]);
-- Where what they call looks for its tables.
SET search_path = public;
\set ON_ERROR_STOP off
SELECT refresh FROM stale ORDER BY oid
\gexec
\set ON_ERROR_STOP on
SELECT refresh || ' WITH NO DATA' FROM stale
\gexec
