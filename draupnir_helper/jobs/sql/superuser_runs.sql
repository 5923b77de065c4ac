-- Run in every database after ownership.sql, in its session: remove objects of draupnir that the bootstrap superuser would
-- run. Extensions and autovacuum act as the owner of a table, so tables of the superuser must not use objects of others.
CREATE TEMPORARY TABLE foreign_to_superuser AS SELECT class, object FROM object WHERE owner <> 10;
RESET enable_nestloop;
CREATE INDEX ON foreign_to_superuser (class, object);
ANALYZE foreign_to_superuser;
-- pg_depend is data, too, so expression trees are searched for oids of objects that the superuser does not own.
CREATE TEMPORARY TABLE foreign_oid AS
  SELECT oid::text AS oid FROM pg_proc WHERE proowner <> 10 OR oid = ANY (:'closed'::oid[])
   UNION SELECT oid::text FROM pg_operator WHERE oprowner <> 10
   UNION SELECT oid::text FROM pg_type WHERE typowner <> 10;
CREATE INDEX ON foreign_oid (oid);
ANALYZE foreign_oid;
CREATE FUNCTION pg_temp.is_foreign(tree text) RETURNS boolean LANGUAGE sql AS
  'SELECT EXISTS (SELECT FROM regexp_matches(tree, ''[0-9]+'', ''g'') AS m(number) JOIN pg_temp.foreign_oid ON oid = number[1])';
SELECT format('DROP %s %s', replace(type, ' object', ''), identity)
  FROM (SELECT classid, objid FROM pg_depend d
         WHERE (refclassid, refobjid) IN (SELECT class, object FROM foreign_to_superuser)
           AND deptype = 'n'
           AND (classid = 'pg_trigger'::regclass AND (SELECT relowner FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE t.oid = objid) = 10
             OR classid = 'pg_class'::regclass AND (SELECT c.relowner FROM pg_index i JOIN pg_class c ON c.oid = indrelid WHERE indexrelid = objid) = 10
             OR classid = 'pg_policy'::regclass AND (SELECT relowner FROM pg_policy p JOIN pg_class c ON c.oid = polrelid WHERE p.oid = objid) = 10)
        UNION
        SELECT 'pg_class'::regclass, indexrelid FROM pg_index JOIN pg_class c ON c.oid = indrelid
         WHERE relowner = 10
           AND (pg_temp.is_foreign(concat(indexprs, ' ', indpred))
             OR EXISTS (SELECT FROM pg_opclass o WHERE o.oid = ANY (indclass::oid[]) AND opcowner <> 10))
        UNION
        SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
         WHERE relowner = 10 AND NOT tgisinternal AND pg_temp.is_foreign(concat(tgfoid::oid, ' ', tgqual))
        UNION
        SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p JOIN pg_class c ON c.oid = polrelid
         WHERE relowner = 10 AND pg_temp.is_foreign(concat(polqual, ' ', polwithcheck))
        UNION
        SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext s JOIN pg_class c ON c.oid = stxrelid
         WHERE relowner = 10 AND (('pg_statistic_ext'::regclass)::oid, s.oid) NOT IN (SELECT classid, objid FROM extension_member)
       ) AS hanging, pg_identify_object(classid, objid, 0)
\gexec
-- The cascade of a foreign key runs as the owner of the referencing table.
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
  FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_class pointed_to ON pointed_to.oid = confrelid
 WHERE contype = 'f' AND c.relowner = 10 AND pointed_to.relowner <> 10
\gexec
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
  FROM pg_constraint o JOIN pg_class c ON c.oid = conrelid
 WHERE contype = 'c' AND relowner = 10
   AND (pg_temp.is_foreign(conbin::text)
     OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_constraint'::regclass AND objid = o.oid
                   AND (refclassid, refobjid) IN (SELECT class, object FROM foreign_to_superuser)))
\gexec
SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', adrelid::regclass, attname)
  FROM pg_attrdef o JOIN pg_class c ON c.oid = adrelid JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
 WHERE relowner = 10 AND attgenerated = ''
   AND (pg_temp.is_foreign(adbin::text)
     OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_attrdef'::regclass AND objid = o.oid
                   AND (refclassid, refobjid) IN (SELECT class, object FROM foreign_to_superuser)))
\gexec
-- A foreign key is checked as the owner of the referenced table, with casts chosen by the creator of the key.
UPDATE pg_class
   SET relacl = ARRAY(SELECT makeaclitem(grantee, grantor, privilege_type, is_grantable) FROM aclexplode(relacl)
                       WHERE grantee = 10 OR privilege_type NOT IN ('TRIGGER', 'REFERENCES', 'MAINTAIN'))
 WHERE relowner = 10 AND EXISTS (SELECT FROM aclexplode(relacl)
                                  WHERE grantee <> 10 AND privilege_type IN ('TRIGGER', 'REFERENCES', 'MAINTAIN'));
-- A write to a view, or to a table with a rule, runs with the rights of its owner. No role needs to write to a catalog.
SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass)
  FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class WHERE relowner = 10 AND relkind IN ('r', 'p')
\gexec
CREATE TEMPORARY VIEW read_only AS
  SELECT oid FROM pg_class
   WHERE relowner = 10 AND (relkind IN ('v', 'm', 'f') OR relnamespace IN (SELECT oid FROM system_schema));
UPDATE pg_class
   SET relacl = nullif(ARRAY(SELECT makeaclitem(grantee, grantor, privilege_type, is_grantable) FROM aclexplode(relacl)
                              WHERE grantee = 10 OR privilege_type IN ('SELECT', 'USAGE')
                                 OR oid = 'pg_settings'::regclass AND privilege_type = 'UPDATE'), '{}')
 WHERE oid IN (SELECT oid FROM read_only)
   AND EXISTS (SELECT FROM aclexplode(relacl)
                WHERE grantee <> 10 AND privilege_type NOT IN ('SELECT', 'USAGE')
                  AND NOT (oid = 'pg_settings'::regclass AND privilege_type = 'UPDATE'));
UPDATE pg_attribute
   SET attacl = nullif(ARRAY(SELECT makeaclitem(grantee, grantor, privilege_type, is_grantable) FROM aclexplode(attacl)
                              WHERE grantee = 10 OR privilege_type = 'SELECT'), '{}')
 WHERE attrelid IN (SELECT oid FROM read_only)
   AND EXISTS (SELECT FROM aclexplode(attacl) WHERE grantee <> 10 AND privilege_type <> 'SELECT');
-- initdb grants UPDATE of pg_settings to everybody, which sets the parameter. Its rules run with the rights of the superuser, so they
-- are made again as in initdb. A dump would contain every other grant, and its restore would change the other server.
SELECT format('DROP RULE %I ON pg_catalog.pg_settings', rulename)
  FROM pg_rewrite WHERE ev_class = 'pg_settings'::regclass AND ev_type <> '1'
\gexec
CREATE RULE pg_settings_u AS ON UPDATE TO pg_catalog.pg_settings WHERE new.name OPERATOR(pg_catalog.=) old.name
  DO SELECT pg_catalog.set_config(old.name, new.setting, false);
CREATE RULE pg_settings_n AS ON UPDATE TO pg_catalog.pg_settings DO INSTEAD NOTHING;
-- Members of pg_write_all_data need no grant. Through a view that writes to a catalog, such as pg_group, they could rename
-- roles. A rule replaces the write by a call that is refused; a rule without an action would report success. It has to be
-- enabled ALWAYS, because draupnir may set session_replication_role. ALTER TABLE refuses that for rules on views.
SELECT current_setting('server_version_num')::int >= 140000 AS has_data_roles
\gset
\if :has_data_roles
SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass)
  FROM pg_rewrite JOIN read_only ON read_only.oid = ev_class
 WHERE ev_type <> '1' AND ev_class <> 'pg_settings'::regclass
\gexec
SELECT format('CREATE RULE %I AS ON %s TO %s DO INSTEAD SELECT pg_catalog.pg_read_file(''PG_VERSION'')',
              'no_' || lower(event), event, v.oid::regclass)
  FROM read_only v JOIN pg_class c ON c.oid = v.oid,
       (VALUES ('UPDATE', 4), ('INSERT', 8), ('DELETE', 16)) AS e(event, bit)
 WHERE relkind = 'v' AND NOT (v.oid = 'pg_settings'::regclass AND event = 'UPDATE')
   AND pg_relation_is_updatable(v.oid, false) & bit <> 0
\gexec
\endif
UPDATE pg_rewrite SET ev_enabled = 'A' WHERE ev_class IN (SELECT oid FROM read_only) AND ev_type <> '1';
-- Only superusers may read these catalogs, as after initdb: they contain passwords, and samples of rows that policies hide.
CREATE TEMPORARY VIEW secret AS
  SELECT oid FROM pg_class
   WHERE relnamespace = 'pg_catalog'::regnamespace
     AND relname IN ('pg_authid', 'pg_shadow', 'pg_statistic', 'pg_statistic_ext_data', 'pg_user_mapping');
UPDATE pg_class SET relacl = ARRAY(SELECT makeaclitem(10, 10, privilege_type, false) FROM aclexplode(acldefault('r', 10)))
 WHERE oid IN (SELECT oid FROM secret) AND EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee <> 10);
UPDATE pg_attribute SET attacl = NULL WHERE attrelid IN (SELECT oid FROM secret) AND attacl IS NOT NULL;
