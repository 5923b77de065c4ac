-- Run in every database, with :bootstrap set to the bootstrap superuser and the oids :kept and :closed of functions, as
-- jobs/catalogs.py judged them. The bootstrap superuser owns only objects of Postgres and of extensions. Its other objects
-- become draupnir's, each in a transaction of its own, so that locks do not add up. Objects of other roles stay with them.
-- Schema and extension membership decide, because the data may use any oid for any object. Print lines of JSON for the report.
SELECT oid AS draupnir FROM pg_authid WHERE rolname = 'draupnir'
\gset
-- The owner of the database is a member of pg_database_owner. draupnir reaches that role too, unless the superuser is the owner.
CREATE TEMPORARY VIEW keeps AS
  SELECT oid FROM pg_authid
   WHERE oid >= 16384::oid AND rolname !~ '^pg_' AND rolname <> 'draupnir_superusers'
      OR rolname = 'pg_database_owner' AND EXISTS (SELECT FROM pg_database WHERE datname = current_database() AND datdba <> 10::oid);
SELECT current_setting('server_version_num')::int >= 130000 AS may_change_catalogs
\gset
\if :may_change_catalogs
SET allow_system_table_mods = on;
\endif
-- Only superusers may own these.
SELECT format('ALTER EVENT TRIGGER %I OWNER TO %I', evtname, :'bootstrap') FROM pg_event_trigger WHERE evtowner <> 10
\gexec
SELECT format('ALTER FOREIGN DATA WRAPPER %I OWNER TO %I', fdwname, :'bootstrap')
  FROM pg_foreign_data_wrapper WHERE fdwowner <> 10
\gexec
SELECT format('ALTER LANGUAGE %I OWNER TO %I', lanname, :'bootstrap') FROM pg_language WHERE lanowner <> 10
\gexec
-- Procedures may differ in their output arguments alone, which regprocedure leaves out.
CREATE TEMPORARY VIEW procedure AS
  SELECT oid, format('%s.%I(%s)', pronamespace::regnamespace, proname, pg_get_function_identity_arguments(oid)) AS identity
    FROM pg_proc WHERE prokind = 'p';
SELECT format('ALTER ROUTINE %s OWNER TO %I', coalesce(identity, p.oid::regprocedure::text), :'bootstrap')
  FROM pg_proc p LEFT JOIN procedure ON procedure.oid = p.oid
 WHERE p.oid = ANY (:'kept'::oid[] || :'closed'::oid[]) AND proowner <> 10
\gexec
-- REVOKE would leave grants of roles other than the owner.
UPDATE pg_proc SET proacl = ARRAY[makeaclitem(10, 10, 'EXECUTE', false)] WHERE oid = ANY (:'closed'::oid[]);
-- Triggers, languages, types and operator classes call a function without the privilege EXECUTE, so remove its extra rights.
UPDATE pg_proc SET prosecdef = false WHERE oid = ANY (:'closed'::oid[]) AND prosecdef;
-- Restore the grants of initdb on functions that PUBLIC may not call: :restricted has entries function=role and function=.
CREATE TEMPORARY TABLE allowed AS
  SELECT to_regprocedure(split_part(each, '=', 1))::oid AS oid,
         array_agg((SELECT oid FROM pg_authid WHERE rolname = split_part(each, '=', 2))) AS roles
    FROM unnest(:'restricted'::text[]) AS each GROUP BY 1;
UPDATE pg_proc p
   SET proacl = ARRAY[makeaclitem(10, 10, 'EXECUTE', false)]
                || ARRAY(SELECT makeaclitem(role, 10, 'EXECUTE', false) FROM unnest(roles) AS role WHERE role <> 0::oid)
  FROM allowed a
 WHERE p.oid = a.oid
   AND (proacl IS NULL
     OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee <> 10::oid AND NOT coalesce(grantee = ANY (roles), false)));
-- A role that can create in pg_catalog could replace what all others call.
UPDATE pg_namespace
   SET nspacl = ARRAY[makeaclitem(10, 10, 'USAGE', false), makeaclitem(10, 10, 'CREATE', false),
                      makeaclitem(0, 10, 'USAGE', false)]
 WHERE nspname IN ('pg_catalog', 'information_schema')
   AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee <> 10 AND privilege_type = 'CREATE');
-- Scripts of extensions run as the bootstrap superuser, so its default privileges would apply to their objects. draupnir gets
-- these default privileges, because it creates all other objects in place of the superuser.
CREATE TEMPORARY VIEW defaults AS
  SELECT defaclnamespace, coalesce(' IN SCHEMA ' || quote_ident(nspname), '') AS place,
         CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                            WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' WHEN 'L' THEN 'LARGE OBJECTS' END AS kind, defaclacl
    FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
   WHERE defaclrole = 10::oid AND (defaclnamespace = 0::oid OR nspname IS NOT NULL);
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE draupnir REVOKE ALL ON %s FROM PUBLIC', kind) FROM defaults
 WHERE defaclnamespace = 0::oid AND kind IN ('FUNCTIONS', 'TYPES')
   AND NOT EXISTS (SELECT FROM aclexplode(defaclacl) WHERE grantee = 0::oid)
\gexec
CREATE TEMPORARY TABLE statement AS
  SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE draupnir%s GRANT %s ON %s TO %s%s', place, privilege_type, kind,
                CASE WHEN grantee = 0::oid THEN 'PUBLIC' ELSE quote_ident(rolname) END,
                CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS text
    FROM defaults, aclexplode(defaclacl) LEFT JOIN pg_authid r ON r.oid = grantee
   WHERE grantee <> 10::oid AND (grantee = 0::oid OR rolname IS NOT NULL);
\ir execute.sql
DELETE FROM pg_shdepend d USING pg_default_acl a
 WHERE a.defaclrole = 10 AND d.objid = a.oid AND d.classid = 'pg_default_acl'::regclass
   AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
DELETE FROM pg_default_acl WHERE defaclrole = 10;

CREATE TEMPORARY VIEW extension_member AS
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass;
CREATE TEMPORARY VIEW system_schema AS
  SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'pg_toast');
CREATE TEMPORARY VIEW temporary_schema AS SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_';
-- The owner of an extension may update it. The script runs as superuser, so that role must not own tables that it uses.
UPDATE pg_extension e SET extowner = CASE WHEN has_tables THEN 10 WHEN extowner IN (SELECT oid FROM keeps) THEN extowner
                                          ELSE :draupnir END
  FROM (SELECT e.oid, EXISTS (SELECT FROM pg_depend d JOIN pg_class c ON c.oid = objid
                               WHERE d.deptype = 'e' AND refobjid = e.oid AND refclassid = 'pg_extension'::regclass
                                 AND classid = 'pg_class'::regclass AND relkind IN ('r', 'p', 'm', 'f')) AS has_tables
          FROM pg_extension e) AS found
 WHERE found.oid = e.oid AND extowner <> 10;
DELETE FROM pg_shdepend
 WHERE classid = 'pg_extension'::regclass AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
  SELECT d.oid, 'pg_extension'::regclass, e.oid, 0, 'pg_authid'::regclass, extowner, 'o'
    FROM pg_extension e, pg_database d WHERE datname = current_database() AND extowner <> 10;

-- ALTER PUBLICATION refuses to give a publication for all tables to a role that is not a superuser.
UPDATE pg_publication SET pubowner = :draupnir WHERE pubowner NOT IN (SELECT oid FROM keeps);
DELETE FROM pg_shdepend
 WHERE classid = 'pg_publication'::regclass AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database());
INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
  SELECT d.oid, 'pg_publication'::regclass, p.oid, 0, 'pg_authid'::regclass, pubowner, 'o'
    FROM pg_publication p, pg_database d WHERE datname = current_database();
-- Large objects can be numerous, so update the catalog. Those with grants follow below, because their grantor changes, too.
INSERT INTO pg_shdepend (dbid, classid, objid, objsubid, refclassid, refobjid, deptype)
  SELECT d.oid, 'pg_largeobject'::regclass, l.oid, 0, 'pg_authid'::regclass, :draupnir, 'o'
    FROM pg_largeobject_metadata l, pg_database d
   WHERE datname = current_database() AND lomowner = 10::oid AND lomacl IS NULL;
UPDATE pg_largeobject_metadata SET lomowner = :draupnir WHERE lomowner = 10::oid AND lomacl IS NULL;

-- The owner of a table can create indexes on its partitions, with the rights of their owner. So the superuser owns no partition.
CREATE TEMPORARY VIEW part_of_other AS
  SELECT inhrelid AS object FROM pg_inherits
   WHERE ('pg_class'::regclass::oid, inhparent) NOT IN (SELECT classid, objid FROM extension_member);

-- List all objects with an owner, and their kind for ALTER. Names of numerous kinds are written out only below. Sequences of
-- columns follow their table; array, multirange and row types follow their base.
CREATE TEMPORARY VIEW object (kind, class, object, namespace, owner, identity) AS
  SELECT 'SCHEMA', 'pg_namespace'::regclass::oid, oid, oid, nspowner, quote_ident(nspname) FROM pg_namespace
   WHERE nspname <> 'pg_toast' AND pg_get_userbyid(nspowner) <> 'pg_database_owner'
  UNION ALL
  SELECT 'TABLE', 'pg_class'::regclass, c.oid, relnamespace, relowner, NULL FROM pg_class c
   WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
     AND relnamespace <> 'pg_toast'::regnamespace
     AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                         AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
  UNION ALL
  SELECT 'ROUTINE', 'pg_proc'::regclass, pg_proc.oid, pronamespace, proowner, identity
    FROM pg_proc LEFT JOIN procedure ON procedure.oid = pg_proc.oid
   WHERE pg_proc.oid <> ALL (:'kept'::oid[] || :'closed'::oid[]) AND NOT (proowner = 4200::oid AND prosecdef)  -- powerless.sql
  UNION ALL
  SELECT 'TYPE', 'pg_type'::regclass, t.oid, typnamespace, typowner, NULL FROM pg_type t
   WHERE (typtype IN ('b', 'd', 'e', 'r')
          OR typtype = 'c' AND (SELECT relkind FROM pg_class WHERE pg_class.oid = typrelid) = 'c')
     AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
  UNION ALL
  SELECT 'OPERATOR', 'pg_operator'::regclass, oid, oprnamespace, oprowner, NULL FROM pg_operator
  UNION ALL
  SELECT 'OPERATOR CLASS', 'pg_opclass'::regclass, o.oid, opcnamespace, opcowner,
         format('%s.%I USING %I', opcnamespace::regnamespace, opcname, amname)
    FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod
  UNION ALL
  SELECT 'OPERATOR FAMILY', 'pg_opfamily'::regclass, o.oid, opfnamespace, opfowner,
         format('%s.%I USING %I', opfnamespace::regnamespace, opfname, amname)
    FROM pg_opfamily o JOIN pg_am a ON a.oid = opfmethod
  UNION ALL
  SELECT 'STATISTICS', 'pg_statistic_ext'::regclass, oid, stxnamespace, stxowner,
         format('%s.%I', stxnamespace::regnamespace, stxname) FROM pg_statistic_ext
  UNION ALL
  SELECT 'COLLATION', 'pg_collation'::regclass, oid, collnamespace, collowner,
         format('%s.%I', collnamespace::regnamespace, collname) FROM pg_collation
  UNION ALL
  SELECT 'CONVERSION', 'pg_conversion'::regclass, oid, connamespace, conowner,
         format('%s.%I', connamespace::regnamespace, conname) FROM pg_conversion
  UNION ALL
  SELECT 'TEXT SEARCH DICTIONARY', 'pg_ts_dict'::regclass, oid, dictnamespace, dictowner,
         format('%s.%I', dictnamespace::regnamespace, dictname) FROM pg_ts_dict
  UNION ALL
  SELECT 'TEXT SEARCH CONFIGURATION', 'pg_ts_config'::regclass, oid, cfgnamespace, cfgowner,
         format('%s.%I', cfgnamespace::regnamespace, cfgname) FROM pg_ts_config
  UNION ALL
  SELECT 'LARGE OBJECT', 'pg_largeobject'::regclass, oid, NULL, lomowner, oid::text FROM pg_largeobject_metadata
  UNION ALL
  SELECT 'SERVER', 'pg_foreign_server'::regclass, oid, NULL, srvowner, quote_ident(srvname) FROM pg_foreign_server;
-- Without recent statistics the planner assumes small catalogs, also in a database with many tables.
SET enable_nestloop = off;
SELECT DISTINCT json_build_object('code', 'owner_changed', 'object', rolname)::text
  FROM object JOIN pg_authid r ON r.oid = owner
 WHERE owner < 16384::oid AND owner <> 10::oid AND owner NOT IN (SELECT oid FROM keeps);
SELECT format('ALTER %s %s OWNER TO %I', kind,
              CASE kind WHEN 'TABLE' THEN object::regclass::text WHEN 'ROUTINE' THEN coalesce(identity, object::regprocedure::text)
                        WHEN 'TYPE' THEN object::regtype::text WHEN 'OPERATOR' THEN object::regoperator::text
                        ELSE identity END,
              CASE wanted WHEN 10 THEN :'bootstrap' ELSE 'draupnir' END)
  FROM (SELECT *, CASE WHEN namespace IN (SELECT oid FROM system_schema)
                         OR (class, object) IN (SELECT classid, objid FROM extension_member)
                            AND NOT (class = 'pg_class'::regclass AND object IN (SELECT object FROM part_of_other))
                       THEN 10 WHEN owner IN (SELECT oid FROM keeps) THEN owner ELSE :draupnir END AS wanted
          FROM object WHERE namespace IS NULL OR namespace NOT IN (SELECT oid FROM temporary_schema)) AS o
 WHERE owner <> wanted
\gexec
