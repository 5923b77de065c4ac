-- How many others are connected, background workers of extensions among them, and of each database how many transactions
-- were rolled back, by those who have left. By functions, for the data may have replaced the views that tell it.
SELECT count(*) FROM pg_stat_get_activity(NULL)
 WHERE datid <> 0 AND pid <> pg_backend_pid() AND backend_type NOT IN ('autovacuum worker', 'parallel worker');
SELECT oid, pg_stat_get_db_xact_rollback(oid) FROM pg_database;
