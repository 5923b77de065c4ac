-- Every database takes connections, so that none is passed over; answers their oids and names. From template0, too, draupnir
-- could make a database and read what is in it.
SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname) FROM pg_database WHERE NOT datallowconn
\gexec
SELECT oid, to_json(datname) FROM pg_database WHERE datallowconn ORDER BY oid;
