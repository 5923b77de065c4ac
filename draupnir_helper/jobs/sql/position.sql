-- Run in template1: write all changes to the files, and return the position in the write-ahead log.
CHECKPOINT;
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0');
