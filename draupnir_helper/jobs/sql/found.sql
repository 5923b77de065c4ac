-- Run in template1: list what the job will change in databases and roles. removals.sql lists the rest of the report.
SELECT jsonb_build_object('code', 'database_dropped', 'database', datname) FROM pg_database WHERE datconnlimit = -2
UNION ALL
SELECT jsonb_build_object('code', 'connection_limit_removed', 'database', datname) FROM pg_database WHERE datconnlimit = 0
UNION ALL
SELECT jsonb_build_object('code', 'role_limited', 'object', rolname, 'what', what)
  FROM (SELECT rolname, concat_ws(', ', CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                                        CASE WHEN rolcreaterole AND current_setting('server_version_num')::int < 160000
                                             THEN 'CREATEROLE' END) AS what
          FROM pg_authid WHERE oid >= 16384::oid AND rolname <> 'draupnir' AND NOT rolsuper) AS r
 WHERE what <> ''
UNION ALL
SELECT jsonb_build_object('code', 'role_limited', 'object', m.rolname, 'what', 'the membership in ' || r.rolname)
  FROM pg_auth_members JOIN pg_authid r ON r.oid = roleid JOIN pg_authid m ON m.oid = member
 WHERE (r.oid = 10::oid OR r.rolname ~ '^pg_')
   AND r.rolname NOT IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_monitor')
   AND m.oid >= 16384::oid AND m.rolname <> 'draupnir';
