-- Run in every database: list the files of relations as oid of the table, filenode, whether the table is a catalog, and
-- whether it has to be rewritten in any case. Pages of an unlogged table do not show whether they were changed. The hand-over
-- deletes the statistics later.
WITH heap AS (
  SELECT oid, relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')) AS is_catalog,
         relpersistence = 'u' OR oid = ANY ('{pg_statistic, pg_statistic_ext_data}'::regclass[]) AS always
    FROM pg_class WHERE relkind IN ('r', 'm') AND relpersistence <> 't' AND NOT relisshared),
part AS (
  SELECT oid AS heap, oid FROM heap
   UNION ALL
  SELECT heap.oid, reltoastrelid FROM heap JOIN pg_class USING (oid) WHERE reltoastrelid <> 0),
every AS (
  SELECT heap, oid FROM part
   UNION ALL
  SELECT heap, indexrelid FROM part JOIN pg_index ON indrelid = part.oid)
SELECT concat_ws('|', heap, pg_relation_filenode(every.oid), is_catalog::int, always::int)
  FROM every JOIN heap ON heap.oid = heap
 WHERE pg_relation_filenode(every.oid) IS NOT NULL;
