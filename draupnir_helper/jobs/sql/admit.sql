-- Names in shared catalogs have the encoding of the database in which they were given, so they are returned as bytes.
\encoding SQL_ASCII
-- Let every database accept connections, template0 too, since users can copy it; return oids and names. A database whose
-- DROP was interrupted can only be dropped.
UPDATE pg_database SET datistemplate = false WHERE datconnlimit = -2 AND datistemplate;
UPDATE pg_database SET datname = 'dropped_' || oid WHERE datconnlimit = -2 AND datname !~ '^[ -~]*$';
SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE datconnlimit = -2
\gexec
UPDATE pg_database SET datallowconn = true WHERE NOT datallowconn;
-- With CONNECTION LIMIT 0, only superusers can connect to a database.
UPDATE pg_database SET datconnlimit = -1 WHERE datconnlimit = 0;
SELECT oid, to_json(datname) FROM pg_database ORDER BY oid;
