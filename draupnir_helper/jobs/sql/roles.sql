-- Run once after the script, with the name of the superuser in :bootstrap. Roles stay, without rights that reach beyond SQL,
-- and draupnir becomes a member of each. The statements read catalogs instead of views, because the data may have replaced
-- views. They update catalogs where ALTER ROLE would refuse roles whose names begin with pg_, or whose oids are reserved.
SELECT current_setting('server_version_num')::int >= 150000 AS has_parameter_acl,
       current_setting('server_version_num')::int >= 160000 AS creates_roles
\gset
SELECT 'CREATE ROLE draupnir' WHERE NOT EXISTS (SELECT FROM pg_authid WHERE rolname = 'draupnir')
\gexec
ALTER ROLE draupnir LOGIN INHERIT CREATEDB PASSWORD NULL CONNECTION LIMIT -1 VALID UNTIL 'infinity';
-- The first line of pg_hba.conf rejects the members of this role.
CREATE ROLE draupnir_superusers;
CREATE TEMPORARY VIEW reserved AS
  SELECT oid, rolname FROM pg_authid WHERE oid < 16384::oid OR rolname ~ '^pg_' OR rolname = 'draupnir_superusers';
CREATE TEMPORARY VIEW permitted AS
  SELECT oid FROM reserved
   WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_monitor');
CREATE TEMPORARY TABLE former_superuser AS
  SELECT oid FROM pg_authid WHERE rolsuper AND oid NOT IN (SELECT oid FROM reserved);
-- Before Postgres 16, a role with CREATEROLE can grant all roles except superusers, predefined ones too.
UPDATE pg_authid
   SET rolcreatedb = rolcreatedb OR rolsuper,
       rolcreaterole = :'creates_roles' AND (rolcreaterole OR rolsuper OR rolname = 'draupnir'),
       rolsuper = false, rolreplication = false, rolbypassrls = false
 WHERE oid <> 10::oid;
UPDATE pg_authid SET rolcanlogin = false, rolcreaterole = false
 WHERE oid <> 10::oid AND oid IN (SELECT oid FROM reserved);
UPDATE pg_authid SET rolpassword = NULL WHERE rolpassword IS NOT NULL;

-- Memberships that initdb gives to pg_monitor stay. Other predefined roles must not get rights by membership.
DELETE FROM pg_auth_members m
 WHERE NOT (member = 3373::oid AND roleid IN (3374::oid, 3375::oid, 3377::oid) AND grantor = 10::oid)
   AND (roleid IN (SELECT oid FROM reserved EXCEPT SELECT oid FROM permitted)
     OR member IN (SELECT oid FROM reserved WHERE oid <> 10::oid)
     OR roleid = (SELECT oid FROM pg_authid WHERE rolname = 'draupnir')
     OR NOT EXISTS (SELECT FROM pg_authid WHERE oid = roleid) OR NOT EXISTS (SELECT FROM pg_authid WHERE oid = member));
\if :creates_roles
DELETE FROM pg_shdepend
 WHERE classid = 'pg_auth_members'::regclass AND objid NOT IN (SELECT oid FROM pg_auth_members);
\endif
GRANT draupnir_superusers TO :"bootstrap";
CREATE TEMPORARY TABLE statement AS
  SELECT format('GRANT %I TO draupnir WITH ADMIN OPTION', rolname)
         || CASE WHEN :'creates_roles' THEN ', INHERIT TRUE, SET TRUE' ELSE '' END AS text
    FROM pg_authid
   WHERE oid NOT IN (SELECT oid FROM reserved) AND rolname <> 'draupnir';
\ir execute.sql
-- From Postgres 15 on, a role can be allowed to change a server parameter.
\if :has_parameter_acl
CREATE TEMPORARY TABLE replicating AS
  SELECT grantee FROM pg_parameter_acl, aclexplode(paracl)
   WHERE parname = 'session_replication_role' AND privilege_type = 'SET' AND grantee <> 10::oid
   UNION SELECT oid FROM former_superuser
   UNION SELECT oid FROM pg_authid WHERE rolname = 'draupnir';
DELETE FROM pg_shdepend WHERE classid = 'pg_parameter_acl'::regclass;
DELETE FROM pg_parameter_acl;
CREATE TEMPORARY TABLE statement AS
  SELECT format('GRANT SET ON PARAMETER session_replication_role TO %s',
                CASE WHEN grantee = 0::oid THEN 'PUBLIC' ELSE quote_ident(rolname) END) AS text
    FROM replicating LEFT JOIN pg_authid r ON r.oid = grantee
   WHERE grantee = 0::oid OR rolname IS NOT NULL AND grantee NOT IN (SELECT oid FROM reserved);
\ir execute.sql
\endif

CREATE TEMPORARY TABLE statement AS
  SELECT format('ALTER DATABASE %I OWNER TO %I', datname, CASE owner WHEN 10::oid THEN :'bootstrap' ELSE 'draupnir' END) AS text
    FROM (SELECT *, CASE WHEN datname IN ('template0', 'template1') THEN 10::oid
                         WHEN datdba IN (SELECT oid FROM pg_authid) AND datdba NOT IN (SELECT oid FROM reserved) THEN datdba
                         ELSE (SELECT oid FROM pg_authid WHERE rolname = 'draupnir') END AS owner FROM pg_database) AS d
   WHERE datdba <> owner;
\ir execute.sql
-- The data may have revoked CONNECT from PUBLIC.
CREATE TEMPORARY TABLE statement AS
  SELECT format('GRANT CONNECT ON DATABASE %I TO draupnir', datname) AS text
    FROM pg_database WHERE NOT has_database_privilege('draupnir', oid, 'CONNECT');
\ir execute.sql
SELECT format('ALTER TABLESPACE %I OWNER TO %I', spcname, :'bootstrap') FROM pg_tablespace WHERE spcowner <> 10::oid
\gexec
