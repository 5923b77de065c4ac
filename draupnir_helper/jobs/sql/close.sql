-- Run last. template0 accepts no connections again, as after initdb.
ALTER DATABASE template0 ALLOW_CONNECTIONS false;
-- This is a second wall behind the first line of pg_hba.conf. VACUUM removes the old version of the row, because inspections.py
-- reads old versions, too.
UPDATE pg_authid SET rolcanlogin = false WHERE oid = 10::oid;
VACUUM pg_authid;
