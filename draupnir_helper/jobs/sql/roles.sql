-- Run once: only the role draupnir may log in, and it is not a superuser. Other roles stay, without powers, as owners of their
-- grants. The statements read catalogs instead of views, because the data may have replaced views.
SELECT 'CREATE ROLE draupnir' WHERE NOT EXISTS (SELECT FROM pg_authid WHERE rolname = 'draupnir')
\gexec
ALTER ROLE draupnir LOGIN INHERIT NOSUPERUSER CREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
  PASSWORD NULL CONNECTION LIMIT -1 VALID UNTIL 'infinity';
ALTER ROLE draupnir RESET ALL;
SELECT format('ALTER ROLE draupnir IN DATABASE %I RESET ALL', datname)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase JOIN pg_authid r ON r.oid = s.setrole
 WHERE r.rolname = 'draupnir'
\gexec
-- From Postgres 16 on, grants of different grantors are separate rows.
SELECT format('REVOKE %I FROM draupnir%s CASCADE', granted.rolname,
              CASE WHEN current_setting('server_version_num')::int >= 160000
                   THEN format(' GRANTED BY %I', pg_get_userbyid(m.grantor)) ELSE '' END)
  FROM pg_auth_members m JOIN pg_authid granted ON granted.oid = m.roleid JOIN pg_authid member ON member.oid = m.member
 WHERE member.rolname = 'draupnir'
\gexec
-- Not ALTER ROLE, which refuses roles whose names begin with pg_, or whose oids are reserved.
UPDATE pg_authid
   SET rolsuper = false, rolcreaterole = false, rolreplication = false, rolbypassrls = false, rolcanlogin = false
 WHERE oid <> 10 AND rolname <> 'draupnir';
UPDATE pg_authid SET rolpassword = NULL WHERE rolpassword IS NOT NULL;
-- As the owner of a database, draupnir is implicitly a member of pg_database_owner, oid 6171. The data may have renamed it.
DELETE FROM pg_auth_members WHERE member = 6171;
-- From Postgres 15 on, a role can be allowed to change a server parameter.
SELECT current_setting('server_version_num')::int >= 150000 AS has_parameter_acl
\gset
\if :has_parameter_acl
SELECT DISTINCT format('REVOKE ALL ON PARAMETER %I FROM %s CASCADE', parname,
                       CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
  FROM pg_parameter_acl, aclexplode(paracl) WHERE grantee <> 10
\gexec
\endif
SELECT format('ALTER DATABASE %I OWNER TO %I', datname, CASE owner WHEN 10 THEN :'bootstrap' ELSE 'draupnir' END)
  FROM (SELECT *, CASE WHEN datname IN ('template0', 'template1') THEN 10
                       ELSE (SELECT oid FROM pg_authid WHERE rolname = 'draupnir') END AS owner FROM pg_database) AS d
 WHERE datdba <> owner
\gexec
SELECT format('ALTER TABLESPACE %I OWNER TO %I', spcname, :'bootstrap') FROM pg_tablespace WHERE spcowner <> 10
\gexec
