-- Run in every database: delete the planner's statistics. A later ANALYZE fills them again, but it would retain the rows of
-- an emptied table. The statistics of catalogs contain labels of enums, settings of roles, and hosts of foreign servers.
DELETE FROM pg_statistic;
DELETE FROM pg_statistic_ext_data;
