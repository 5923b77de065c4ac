-- Run in a database after ANALYZE failed for :tables: list the indexes with expressions that ANALYZE evaluates, and the foreign
-- tables that inherit from a table, which ANALYZE reads.
WITH RECURSIVE below(root, oid) AS (
  SELECT oid, oid FROM pg_class WHERE oid = ANY (:'tables'::oid[])
   UNION SELECT root, inhrelid FROM below JOIN pg_inherits ON inhparent = below.oid)
SELECT jsonb_build_object(
         'oid', root::bigint, 'name', root::regclass, 'is_parent', (SELECT relkind = 'p' FROM pg_class WHERE oid = root),
         'indexes', (SELECT jsonb_object_agg(indexrelid, indexrelid::regclass) FROM pg_index
                      WHERE indrelid = ANY (array_agg(below.oid)) AND indislive
                        AND (indexprs IS NOT NULL OR indpred IS NOT NULL)),
         'foreign', jsonb_agg(below.oid::regclass ORDER BY below.oid) FILTER (WHERE relkind = 'f'))
  FROM below JOIN pg_class c ON c.oid = below.oid GROUP BY root;
