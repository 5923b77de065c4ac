-- Run in the script's own session. Uncommitted changes would be rolled back at its end, and the original data would stay.
\set ON_ERROR_STOP on
SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL AS left_open
\gset
\if :left_open
\warn 'anonymisation_script.sql: ERROR:  the script leaves a transaction open; end it with COMMIT'
DO 'BEGIN RAISE EXCEPTION $$a transaction was left open$$; END';
\endif
-- Before the script there were no prepared transactions.
SELECT count(*) > 0 AS left_prepared FROM pg_catalog.pg_prepared_xact()
\gset
\if :left_prepared
\warn 'anonymisation_script.sql: ERROR:  the script leaves a prepared transaction; end it with COMMIT PREPARED'
DO 'BEGIN RAISE EXCEPTION $$a transaction was left prepared$$; END';
\endif
-- The last line of the script sets this, if psql reaches it.
\warn :draupnir_end
