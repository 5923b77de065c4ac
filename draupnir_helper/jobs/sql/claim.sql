-- Run once before the script, which may alter the role and give it settings.
SELECT 'CREATE ROLE draupnir' WHERE NOT EXISTS (SELECT FROM pg_authid WHERE rolname = 'draupnir')
\gexec
DELETE FROM pg_db_role_setting WHERE setrole = (SELECT oid FROM pg_authid WHERE rolname = 'draupnir');
