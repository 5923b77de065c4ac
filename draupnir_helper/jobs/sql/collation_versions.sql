-- Run in every database after its indexes were rebuilt. ALTER COLLATION and ALTER DATABASE ... REFRESH are not used, because
-- they refuse to record a missing version.
UPDATE pg_collation SET collversion = pg_collation_actual_version(oid)
 WHERE oid <> 100 AND collprovider <> 'd' AND collversion IS DISTINCT FROM pg_collation_actual_version(oid);
