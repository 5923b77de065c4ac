-- Run once, in template1: list what each database needs before anybody can connect to it. See preflight.sql. Names are
-- returned as bytes; see admit.sql.
\encoding SQL_ASCII
SELECT jsonb_build_array('locale', locale, format('database %I', datname), datname)
  FROM pg_database, unnest(ARRAY[datcollate, datctype]::text[]) AS locale
UNION ALL
SELECT jsonb_build_array('tablespace', s.oid::text, spcname, datname)
  FROM pg_database JOIN pg_tablespace s ON s.oid = dattablespace
 WHERE s.oid >= 16384;
