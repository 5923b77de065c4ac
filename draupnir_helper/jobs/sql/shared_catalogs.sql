-- Run in template1: list the catalogs that all databases share.
SELECT oid FROM pg_class WHERE relisshared AND relkind = 'r';
