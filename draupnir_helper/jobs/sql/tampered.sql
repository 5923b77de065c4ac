-- Run in every database after superuser_runs.sql, in its session: names the columns of catalogs in which something of
-- Postgres's own calls a function that is neither Postgres's nor an extension's. The superuser would run it.
SELECT format('SELECT %L FROM %I WHERE (%s) AND %I::oid IN (SELECT oid FROM pg_proc WHERE proowner <> 10 OR oid = ANY (%L::oid[])) LIMIT 1',
              relname || '.' || attname, relname, own, attname, :'closed')
  FROM (VALUES ('pg_aggregate', 'aggfnoid::oid IN (SELECT oid FROM pg_proc WHERE pronamespace = ''pg_catalog''::regnamespace)'),
               ('pg_am', 'true'),
               ('pg_amproc', 'amprocfamily IN (SELECT oid FROM pg_opfamily WHERE opfnamespace = ''pg_catalog''::regnamespace)'),
               ('pg_conversion', 'connamespace = ''pg_catalog''::regnamespace'),
               ('pg_operator', 'oprnamespace = ''pg_catalog''::regnamespace AND oprowner = 10'),
               ('pg_proc', 'pronamespace = ''pg_catalog''::regnamespace'),
               ('pg_range', 'rngtypid IN (SELECT oid FROM pg_type WHERE typnamespace = ''pg_catalog''::regnamespace)'),
               ('pg_ts_parser', 'prsnamespace = ''pg_catalog''::regnamespace'),
               ('pg_ts_template', 'tmplnamespace = ''pg_catalog''::regnamespace'),
               ('pg_type', 'typnamespace = ''pg_catalog''::regnamespace')) AS catalog(name, own)
  JOIN pg_class c ON relname = name AND relnamespace = 'pg_catalog'::regnamespace
  JOIN pg_attribute ON attrelid = c.oid AND atttypid = 'regproc'::regtype AND attname <> 'aggfnoid' AND NOT attisdropped
\gexec
