-- Run in every database, with :bootstrap set to the bootstrap superuser. REASSIGN OWNED does not touch what the
-- bootstrap superuser owns, so that is listed kind by kind; members of extensions stay with their extension.
-- These two kinds may belong to superusers only.
SELECT format('ALTER EVENT TRIGGER %I OWNER TO %I', evtname, :'bootstrap') FROM pg_event_trigger WHERE evtowner <> 10
\gexec
SELECT format('ALTER FOREIGN DATA WRAPPER %I OWNER TO %I', fdwname, :'bootstrap')
  FROM pg_foreign_data_wrapper WHERE fdwowner <> 10
\gexec
-- What an extension keeps from everybody, such as reading the log, would come with its owner's other things.
SELECT format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, :'bootstrap') FROM pg_proc p
 WHERE proowner >= 16384
   AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
\gexec
-- Postgres's own functions that not everybody may call, such as those that read files: what the source granted of them.
SELECT format('REVOKE ALL ON ROUTINE %s FROM PUBLIC, draupnir', p.oid::regprocedure)
  FROM pg_proc p JOIN pg_init_privs i ON i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid
 WHERE p.oid < 16384 AND p.proacl IS DISTINCT FROM i.initprivs
\gexec
SELECT format('REASSIGN OWNED BY %I TO draupnir', rolname) FROM pg_roles WHERE oid >= 16384 AND rolname <> 'draupnir'
\gexec
CREATE TEMPORARY VIEW extension_member AS
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass;
SELECT format('ALTER SCHEMA %I OWNER TO draupnir', nspname) FROM pg_namespace n
 WHERE nspowner = 10 AND nspname !~ '^pg_' AND nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_namespace'::regclass AND objid = n.oid)
\gexec
-- A sequence of a column follows its table.
SELECT format('ALTER TABLE %s OWNER TO draupnir', c.oid::regclass) FROM pg_class c
 WHERE relowner = 10 AND c.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_class'::regclass AND objid = c.oid)
   AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                       AND d.objid = c.oid AND d.deptype IN ('a', 'i')))
\gexec
SELECT format('ALTER ROUTINE %s OWNER TO draupnir', p.oid::regprocedure) FROM pg_proc p
 WHERE proowner = 10 AND p.oid >= 16384
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
\gexec
-- Array, multirange and row types follow the type or table that they belong to.
SELECT format('ALTER TYPE %s OWNER TO draupnir', t.oid::regtype) FROM pg_type t
 WHERE typowner = 10 AND t.oid >= 16384
   AND (typtype IN ('b', 'd', 'e', 'r')
        OR typtype = 'c' AND (SELECT relkind FROM pg_class WHERE pg_class.oid = typrelid) = 'c')
   AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
   AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = typnamespace AND nspname ~ '^pg_(toast|temp)')
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_type'::regclass AND objid = t.oid)
\gexec
SELECT format('ALTER %s %I.%I OWNER TO draupnir', kind, nspname, name)
  FROM (SELECT 'STATISTICS', 'pg_statistic_ext'::regclass, oid, stxnamespace, stxname, stxowner FROM pg_statistic_ext
        UNION ALL SELECT 'COLLATION', 'pg_collation'::regclass, oid, collnamespace, collname, collowner FROM pg_collation
        UNION ALL SELECT 'CONVERSION', 'pg_conversion'::regclass, oid, connamespace, conname, conowner FROM pg_conversion
        UNION ALL SELECT 'TEXT SEARCH DICTIONARY', 'pg_ts_dict'::regclass, oid, dictnamespace, dictname, dictowner FROM pg_ts_dict
        UNION ALL SELECT 'TEXT SEARCH CONFIGURATION', 'pg_ts_config'::regclass, oid, cfgnamespace, cfgname, cfgowner FROM pg_ts_config
       ) AS o(kind, class, object, namespace, name, owner)
  JOIN pg_namespace n ON n.oid = namespace
 WHERE owner = 10 AND object >= 16384
   AND NOT EXISTS (SELECT FROM extension_member m WHERE m.classid = class AND m.objid = object)
\gexec
SELECT format('ALTER OPERATOR %s OWNER TO draupnir', o.oid::regoperator) FROM pg_operator o
 WHERE oprowner = 10 AND o.oid >= 16384
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_operator'::regclass AND objid = o.oid)
\gexec
SELECT format('ALTER OPERATOR %s %I.%I USING %I OWNER TO draupnir', kind, nspname, name, amname)
  FROM (SELECT 'CLASS', 'pg_opclass'::regclass, oid, opcnamespace, opcname, opcowner, opcmethod FROM pg_opclass
        UNION ALL SELECT 'FAMILY', 'pg_opfamily'::regclass, oid, opfnamespace, opfname, opfowner, opfmethod FROM pg_opfamily
       ) AS o(kind, class, object, namespace, name, owner, method)
  JOIN pg_namespace n ON n.oid = namespace JOIN pg_am a ON a.oid = method
 WHERE owner = 10 AND object >= 16384
   AND NOT EXISTS (SELECT FROM extension_member m WHERE m.classid = class AND m.objid = object)
\gexec
SELECT format('ALTER LARGE OBJECT %s OWNER TO draupnir', oid) FROM pg_largeobject_metadata WHERE lomowner = 10
\gexec
SELECT format('ALTER PUBLICATION %I OWNER TO draupnir', pubname) FROM pg_publication WHERE pubowner = 10
\gexec
SELECT format('ALTER SERVER %I OWNER TO draupnir', srvname) FROM pg_foreign_server s WHERE srvowner = 10
   AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_foreign_server'::regclass AND objid = s.oid)
\gexec
