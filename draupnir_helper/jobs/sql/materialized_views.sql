-- Run in every database before the script: the files of the materialized views that hold rows.
SELECT array_agg(relfilenode) FROM pg_class WHERE relkind = 'm' AND relispopulated;
