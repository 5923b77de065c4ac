-- How many others are connected, and of each database how many transactions were rolled back, by those who have left.
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid();
SELECT datid, xact_rollback FROM pg_stat_database WHERE datid <> 0;
