-- Run in every database: list the columns of tables as JSON, with the kind of their values for needles.py if these can be searched
-- for. Number 0 is the TOAST table of a table. A domain counts as its base type.
-- The root is the partitioned table of a partition, unless a query of it would need a foreign table.
WITH RECURSIVE base AS (
  SELECT oid AS type, oid, typtype, typbasetype FROM pg_type
   UNION ALL
  SELECT type, t.oid, t.typtype, t.typbasetype FROM base JOIN pg_type t ON base.typtype = 'd' AND t.oid = base.typbasetype),
kind AS (
  SELECT type, CASE WHEN t.typcategory = 'S' OR t.oid = 'xml'::regtype THEN 'text'
                    WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
                    WHEN t.oid = 'bytea'::regtype THEN 'bytes'
                    WHEN t.oid = 'uuid'::regtype THEN 'uuid'
                    WHEN t.oid = 'numeric'::regtype THEN 'numeric'
                    WHEN element.typcategory = 'S' AND t.typcategory = 'A' THEN 'array' END AS kind
    FROM base JOIN pg_type t USING (oid) LEFT JOIN pg_type element ON element.oid = t.typelem
   WHERE base.typtype <> 'd'),
unreadable AS MATERIALIZED (
  SELECT DISTINCT pg_partition_root(oid)::oid AS root FROM pg_class WHERE relkind = 'f' AND relispartition),
heap AS (
  SELECT c.oid, reltoastrelid,
         CASE WHEN relispartition AND pg_partition_root(c.oid) NOT IN (SELECT root FROM unreadable) THEN pg_partition_root(c.oid)
              ELSE c.oid END AS root
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
   WHERE relkind IN ('r', 'p') AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'information_schema')),
part AS (
  SELECT oid, root, oid AS relation, attnum AS number, attname, atttypid FROM heap JOIN pg_attribute ON attrelid = oid
   WHERE attnum > 0 AND NOT attisdropped
   UNION ALL
  SELECT heap.oid, heap.oid, reltoastrelid, 0, attname, atttypid FROM heap JOIN pg_attribute ON attrelid = reltoastrelid
   WHERE attname = 'chunk_data'
   UNION ALL
  SELECT attrelid, attrelid, attrelid, attnum, attname, atttypid FROM pg_attribute
   WHERE attrelid = 'pg_largeobject'::regclass AND attname = 'data')
SELECT json_build_object('table', part.oid::bigint, 'number', number, 'kind', coalesce(kind, ''), 'root', root::bigint,
         'filenode', coalesce(pg_relation_filenode(relation)::bigint, 0),
         'pages', coalesce(pg_relation_size(relation) / current_setting('block_size')::int, 0),
         'relation', relation::regclass::text, 'column', quote_ident(part.attname), 'names', ARRAY[nspname, relname, part.attname],
         'key', coalesce((SELECT array_agg(quote_ident(a.attname) ORDER BY a.attnum)
                            FROM pg_index JOIN pg_attribute a ON a.attrelid = indrelid AND a.attnum = ANY (indkey)
                           WHERE indrelid = part.oid AND indisprimary AND number > 0), '{}'))
  FROM part JOIN pg_class c ON c.oid = part.oid JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN kind ON type = atttypid
 ORDER BY part.oid, number;
