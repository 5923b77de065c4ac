-- Run in every database after the script, with :filenodes from before it. A materialized view with an old filenode still has
-- the data from before the script. A view that cannot be refreshed here is emptied and listed, for example if it reads a
-- foreign table. Views are refreshed in the order of their age, because one view may read another.
CREATE TEMPORARY VIEW stale AS
  SELECT c.oid, format('REFRESH MATERIALIZED VIEW %I.%I', nspname, relname) AS refresh,
         to_json(format('%I.%I', nspname, relname)) AS line
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
   WHERE relkind = 'm' AND relispopulated AND relfilenode = ANY (:'filenodes'::oid[]);
-- Functions that the views call often expect their tables in this schema.
SET search_path = public;
\set ON_ERROR_STOP off
SELECT refresh FROM stale ORDER BY oid
\gexec
\set ON_ERROR_STOP on
SELECT line FROM stale ORDER BY oid;
SELECT refresh || ' WITH NO DATA' FROM stale
\gexec
