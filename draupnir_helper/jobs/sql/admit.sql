-- Every database but template0 takes connections, so that none is passed over; answers their names.
SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname)
  FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'
\gexec
SELECT datname FROM pg_database WHERE datallowconn ORDER BY oid;
