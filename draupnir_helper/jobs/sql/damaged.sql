-- Run after a failure, in a database that may have the damaged relation: describe it with its table.
SELECT CASE c.relkind WHEN 'i' THEN format('index %I.%I of ', cn.nspname, c.relname) WHEN 't' THEN 'large values of ' ELSE '' END
       || format('table %I.%I in database %I', tn.nspname, t.relname, current_database())
  FROM pg_class c JOIN pg_namespace cn ON cn.oid = c.relnamespace
  LEFT JOIN pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_class toasted ON toasted.reltoastrelid IN (c.oid, i.indrelid) AND toasted.reltoastrelid <> 0
  JOIN pg_class t ON t.oid = coalesce(toasted.oid, i.indrelid, c.oid)
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
 WHERE c.oid = CASE WHEN :filenode <> 0 THEN pg_filenode_relation(:tablespace, :filenode) ELSE :toasted::oid END
    OR :'index_name' <> '' AND c.relkind = 'i' AND c.relname = :'index_name'
 LIMIT 1;
