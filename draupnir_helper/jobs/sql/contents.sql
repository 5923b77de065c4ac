-- Run in a database: list the columns of the :tables as JSON, catalogs included; a partition has the names of its partitioned table.
-- pg_statistic only repeats values of other tables.
SELECT json_build_object('table', c.oid::bigint, 'relation', c.oid::regclass::text, 'column', quote_ident(attname),
         'names', ARRAY[nspname, root.relname, attname])
  FROM pg_class c JOIN pg_attribute ON attrelid = c.oid
  JOIN pg_class root ON root.oid = CASE WHEN c.relispartition THEN pg_partition_root(c.oid) ELSE c.oid END
  JOIN pg_namespace n ON n.oid = root.relnamespace
 WHERE c.oid = ANY (:'tables'::oid[]) AND attnum > 0 AND NOT attisdropped
   AND c.oid <> ALL ('{pg_statistic, pg_statistic_ext_data}'::regclass[]);
