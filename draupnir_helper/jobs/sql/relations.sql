-- Run in every database: list the relations with the names of their files, as JSON.
SELECT json_build_object('filenode', pg_relation_filenode(oid)::bigint, 'name', oid::regclass::text)
  FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL;
