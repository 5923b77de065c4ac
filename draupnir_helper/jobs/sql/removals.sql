-- Run in every database before disarm.sql, with :names of settings: list what the job removes or disables, as lines of JSON.
SELECT json_build_object('code', code, 'object', object) FROM (
  SELECT 'event_trigger_disabled' AS code, evtname::text AS object FROM pg_event_trigger WHERE evtenabled <> 'D'
  UNION ALL
  SELECT 'prepared_transaction_dropped', gid FROM pg_prepared_xact()
   WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT 'subscription_dropped', subname::text FROM pg_subscription
   WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT 'user_mapping_dropped', srvname || ' ' || coalesce(rolname, 'PUBLIC')
    FROM pg_user_mapping JOIN pg_foreign_server s ON s.oid = umserver LEFT JOIN pg_authid r ON r.oid = umuser
  UNION ALL
  SELECT 'foreign_table_dropped', ftrelid::regclass::text FROM pg_foreign_table
   WHERE EXISTS (SELECT FROM unnest(ftoptions) AS option WHERE option ~ '^(filename|program)=')
  UNION ALL
  SELECT 'superuser_demoted', rolname::text FROM pg_authid
   WHERE rolsuper AND oid <> 10::oid AND current_database() = 'template1'
  UNION ALL
  SELECT 'role_setting_dropped', concat_ws(' ', rolname, datname, split_part(each, '=', 1))
    FROM pg_db_role_setting LEFT JOIN pg_authid r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase,
         unnest(setconfig) AS each
   WHERE lower(split_part(each, '=', 1)) = ANY (:'names'::text[]) AND current_database() = 'template1'
) AS found ORDER BY code, object;
