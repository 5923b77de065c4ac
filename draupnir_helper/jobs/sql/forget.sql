-- Run in every database. ANALYZE fills these again from what is there now, but leaves the rows of an emptied table. That
-- goes for the catalogs, too: they kept labels of enums, settings of roles, and hosts of foreign servers.
DELETE FROM pg_statistic;
DELETE FROM pg_statistic_ext_data;
