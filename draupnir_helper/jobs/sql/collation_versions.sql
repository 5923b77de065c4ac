-- Run in every database after its indexes were rebuilt. Not ALTER COLLATION or ALTER DATABASE ... REFRESH, which refuse to
-- record a version where there was none.
UPDATE pg_collation SET collversion = pg_collation_actual_version(oid)
 WHERE oid <> 100 AND collprovider <> 'd' AND collversion IS DISTINCT FROM pg_collation_actual_version(oid);
