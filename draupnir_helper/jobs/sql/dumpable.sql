-- Run in every database after superuser_runs.sql, in its session: let draupnir dump the tables that extensions declare for it,
-- as the superuser of the source can. pg_dump reads their rows even if no role may.
CREATE TEMPORARY VIEW dumpable AS
  SELECT c.oid, relnamespace FROM pg_extension, unnest(extconfig) AS config JOIN pg_class c ON c.oid = config
   WHERE relowner = 10 AND relkind IN ('r', 'p', 'S') AND relnamespace NOT IN (SELECT oid FROM system_schema)
     AND ('pg_class'::regclass, c.oid) IN (SELECT classid, objid FROM extension_member);
SELECT format('GRANT USAGE ON SCHEMA %s TO draupnir', namespace::regnamespace)
  FROM (SELECT DISTINCT relnamespace AS namespace FROM dumpable) AS of_dumpable
 WHERE NOT has_schema_privilege('draupnir', namespace, 'USAGE')
\gexec
SELECT format('GRANT SELECT ON %s TO draupnir', oid::regclass) FROM dumpable
 WHERE NOT has_table_privilege('draupnir', oid, 'SELECT')
\gexec
