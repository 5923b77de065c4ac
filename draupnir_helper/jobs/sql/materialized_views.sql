-- Run in every database before the script: list the filenodes of populated materialized views.
SELECT array_agg(relfilenode) FROM pg_class WHERE relkind = 'm' AND relispopulated;
