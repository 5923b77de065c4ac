-- Run before and after the script: return whether the data have a role with the name that roles.sql needs.
SELECT count(*) FROM pg_authid WHERE rolname = 'draupnir_superusers';
