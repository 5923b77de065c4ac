-- Run last. As after initdb, template0 accepts no connections.
ALTER DATABASE template0 ALLOW_CONNECTIONS false;
-- A second wall behind the first line of pg_hba.conf. inspections.py reads old versions of rows, too, hence the VACUUM.
UPDATE pg_authid SET rolcanlogin = false WHERE oid = 10::oid;
VACUUM pg_authid;
