-- Run in every database: list the files of relations as oid of the table, filenode, number of dropped columns, whether the table
-- is a catalog, and whether it has to be rewritten in any case. DROP COLUMN leaves the values in the pages, and changes none of
-- them. Pages of an unlogged table do not show whether they were changed. The hand-over deletes the statistics later.
WITH dropped AS (
  SELECT attrelid AS heap, count(*) AS columns FROM pg_attribute WHERE attisdropped GROUP BY attrelid),
heap AS (
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
SELECT concat_ws('|', every.heap, pg_relation_filenode(every.oid), coalesce(columns, 0), is_catalog::int, always::int)
  FROM every JOIN heap ON heap.oid = every.heap LEFT JOIN dropped ON dropped.heap = every.heap
 WHERE pg_relation_filenode(every.oid) IS NOT NULL;
