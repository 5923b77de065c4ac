-- Count other sessions, including background workers of extensions, and the rollbacks of ended sessions in each database.
-- Call functions instead of views, because the data may have replaced views.
SELECT count(*) FROM pg_stat_get_activity(NULL)
 WHERE datid <> 0 AND pid <> pg_backend_pid() AND backend_type NOT IN ('autovacuum worker', 'parallel worker');
SELECT oid, pg_stat_get_db_xact_rollback(oid) FROM pg_database;
