-- Run once, after the indexes of all databases were rebuilt. initdb does not record the version of template0.
SELECT current_setting('server_version_num')::int >= 150000 AS has_database_version
\gset
\if :has_database_version
UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid)
 WHERE datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)
   AND NOT (datname = 'template0' AND datcollversion IS NULL);
\endif
