-- Run in every database before the script: list the partitioned tables that have statistics of their own. Only an ANALYZE of
-- the parent creates such statistics. autovacuum does not.
SELECT array_agg(DISTINCT starelid) FROM pg_statistic JOIN pg_class c ON c.oid = starelid WHERE stainherit AND relkind = 'p';
