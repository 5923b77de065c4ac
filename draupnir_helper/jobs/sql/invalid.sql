-- Run in a database with the oids of :indexes that could not be rebuilt. Postgres does the same with an index that CREATE
-- INDEX CONCURRENTLY could not finish: queries do not use it, and REINDEX makes it valid.
UPDATE pg_index SET indisvalid = false WHERE indexrelid = ANY (:'indexes'::oid[]);
