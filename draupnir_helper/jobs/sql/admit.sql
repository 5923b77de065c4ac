-- Every database but template0 takes connections, so that none is passed over.
SELECT format('ALTER DATABASE %I ALLOW_CONNECTIONS true', datname)
  FROM pg_database WHERE NOT datallowconn AND datname <> 'template0'
\gexec
