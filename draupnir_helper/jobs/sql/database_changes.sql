-- Run in every database before disarm.sql: what the job removes or disables in it, as lines of JSON, with :restricted
-- functions. See jobs/changes.py.
SELECT json_build_object('code', code, 'object', object) FROM (
  SELECT 'event_trigger_disabled' AS code, evtname::text AS object FROM pg_event_trigger WHERE evtenabled <> 'D'
  UNION ALL
  SELECT 'prepared_transaction_dropped', gid FROM pg_prepared_xact()
   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT 'subscription_dropped', subname::text FROM pg_subscription
   WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  -- The server would refuse to convert a role's name from another encoding than the database's.
  SELECT 'user_mapping_dropped', srvname || ' ' || coalesce(CASE WHEN getdatabaseencoding() IN ('UTF8', 'SQL_ASCII') THEN rolname
                                                                 ELSE regexp_replace(rolname, '[^ -~]', '?', 'g') END, 'PUBLIC')
    FROM pg_user_mapping JOIN pg_foreign_server s ON s.oid = umserver LEFT JOIN pg_authid r ON r.oid = umuser
  UNION ALL
  SELECT 'foreign_table_dropped', ftrelid::regclass::text FROM pg_foreign_table
   WHERE EXISTS (SELECT FROM unnest(ftoptions) AS option WHERE option ~ '^(filename|program)=')
  UNION ALL
  -- A base backup has no files of unlogged tables, and recovery after a crash empties them.
  SELECT 'unlogged_table_empty', oid::regclass::text FROM pg_class
   WHERE relkind = 'r' AND relpersistence = 'u' AND relpages > 0 AND pg_relation_size(oid, 'main') = 0
  UNION ALL
  SELECT 'columns_dropped_before', string_agg(DISTINCT attrelid::regclass::text, ', ')
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attisdropped AND relkind IN ('r', 'm') HAVING count(*) > 0
  UNION ALL
  SELECT 'grant_removed', oid::regprocedure::text FROM pg_proc
   WHERE oid IN (SELECT to_regprocedure(split_part(each, '=', 1))::oid FROM unnest(:'restricted'::text[]) AS each)
     AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0::oid OR grantee >= 16384::oid))
  UNION ALL
  SELECT 'grant_removed', oid::regclass::text FROM pg_class
   WHERE relnamespace = 'pg_catalog'::regnamespace
     AND EXISTS (SELECT FROM aclexplode(relacl)
                  WHERE (grantee = 0::oid OR grantee >= 16384::oid)
                    -- initdb grants UPDATE on pg_settings.
                    AND (privilege_type <> 'SELECT' AND oid <> 'pg_settings'::regclass
                      OR relname IN ('pg_authid', 'pg_shadow', 'pg_statistic', 'pg_statistic_ext_data', 'pg_user_mapping')))
) AS found ORDER BY code, object;
