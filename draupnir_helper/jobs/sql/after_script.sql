-- In the script's own session: writes that are not committed would be lost with it, and real data would stay.
\set ON_ERROR_STOP on
SELECT txid_current_if_assigned() IS NOT NULL AS left_open
\gset
\if :left_open
\warn 'anonymisation_script.sql: ERROR:  the script leaves a transaction open; end it with COMMIT'
DO 'BEGIN RAISE EXCEPTION $$a transaction was left open$$; END';
\endif
