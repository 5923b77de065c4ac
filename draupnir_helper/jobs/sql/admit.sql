-- Run once: allow connections to every database, so that the job cleans each of them, and return oids and names. template0 is
-- included, because draupnir could create a database from it and read its content.
SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname) FROM pg_database WHERE NOT datallowconn
\gexec
SELECT oid, to_json(datname) FROM pg_database WHERE datallowconn ORDER BY oid;
