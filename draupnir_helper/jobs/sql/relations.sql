-- Run in every database: list the relations with the names of their files as JSON, each with the table that it belongs to.
SELECT json_build_object('shared', c.relisshared, 'filenode', pg_relation_filenode(c.oid)::bigint, 'name', c.oid::regclass::text,
         'table', coalesce(heap.oid, i.indrelid, c.oid)::bigint)
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_class heap ON heap.reltoastrelid = coalesce(i.indrelid, c.oid)
 WHERE pg_relation_filenode(c.oid) IS NOT NULL;
