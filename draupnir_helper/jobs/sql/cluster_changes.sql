-- Run in template1, before anything is changed: what the job changes in roles and databases, as lines of JSON, with :names of
-- settings. See jobs/changes.py. Names are returned as bytes; see admit.sql.
\encoding SQL_ASCII
SELECT json_build_object('code', 'database_dropped', 'database', datname) FROM pg_database WHERE datconnlimit = -2
UNION ALL
SELECT json_build_object('code', 'connection_limit_removed', 'database', datname) FROM pg_database WHERE datconnlimit = 0
UNION ALL
SELECT json_build_object('code', 'database_opened', 'database', datname) FROM pg_database
 WHERE datname <> 'template0' AND (NOT datallowconn OR datacl IS NOT NULL AND NOT EXISTS (
   SELECT FROM aclexplode(datacl)
    WHERE privilege_type = 'CONNECT' AND (grantee = 0::oid OR grantee >= 16384::oid)))
UNION ALL
SELECT json_build_object('code', 'superuser_demoted', 'object', rolname) FROM pg_authid WHERE rolsuper AND oid <> 10::oid
UNION ALL
SELECT json_build_object('code', 'role_setting_dropped', 'object', concat_ws(' ', rolname, datname, split_part(each, '=', 1)))
  FROM pg_db_role_setting LEFT JOIN pg_authid r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase,
       unnest(setconfig) AS each
 WHERE lower(split_part(each, '=', 1)) = ANY (:'names'::text[])
UNION ALL
SELECT json_build_object('code', 'role_limited', 'object', rolname, 'what', what)
  FROM (SELECT rolname, concat_ws(', ', CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                                        CASE WHEN rolcreaterole AND current_setting('server_version_num')::int < 160000
                                             THEN 'CREATEROLE' END) AS what
          FROM pg_authid WHERE oid >= 16384::oid AND rolname <> 'draupnir' AND NOT rolsuper) AS r
 WHERE what <> ''
UNION ALL
SELECT json_build_object('code', 'role_limited', 'object', m.rolname, 'what', 'the membership in ' || r.rolname)
  FROM pg_auth_members JOIN pg_authid r ON r.oid = roleid JOIN pg_authid m ON m.oid = member
 WHERE (r.oid = 10::oid OR r.rolname ~ '^pg_')
   AND r.rolname NOT IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_monitor')
   AND m.oid >= 16384::oid AND m.rolname <> 'draupnir';
SELECT current_setting('server_version_num')::int >= 150000 AS has_parameter_acl
\gset
\if :has_parameter_acl
SELECT json_build_object('code', 'role_limited', 'object', coalesce(rolname, 'PUBLIC'),
                         'what', format('%s ON PARAMETER %s', privilege_type, parname))
  FROM pg_parameter_acl, aclexplode(paracl) LEFT JOIN pg_authid r ON r.oid = grantee
 WHERE (grantee >= 16384::oid OR grantee = 0::oid) AND rolname IS DISTINCT FROM 'draupnir'
   AND (parname <> 'session_replication_role' OR privilege_type <> 'SET');
\endif
