-- Run in every database before anything else: list what the data need from this server. Each line is a JSON array of the kind,
-- the name, and the object that needs it. See jobs/preflight.py.
SELECT jsonb_build_array('library', probin, coalesce(min(extname), ''))
  FROM pg_proc p
  LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                       AND d.refclassid = 'pg_extension'::regclass
  LEFT JOIN pg_extension e ON e.oid = d.refobjid
 WHERE prolang = 13 AND probin IS NOT NULL
 GROUP BY probin
-- Event triggers are disabled in every image, so their library is not needed, as with pgaudit.
HAVING NOT bool_and(prorettype = 'event_trigger'::regtype)
UNION ALL
SELECT jsonb_build_array('extension', extname, '') FROM pg_extension
UNION ALL
SELECT jsonb_build_array('dictionary', lower(found[1]) || '=' || found[2], format('%I.%I', nspname, dictname))
  FROM pg_ts_dict t JOIN pg_namespace n ON n.oid = dictnamespace,
       regexp_matches(dictinitoption, '(\w+)\s*=\s*''([^'']+)''', 'g') AS found
UNION ALL
SELECT jsonb_build_array('locale', locale, format('collation %I.%I', nspname, collname))
  FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace, unnest(ARRAY[collcollate, collctype]::text[]) AS locale
 WHERE collprovider = 'c' AND c.oid >= 16384
   AND EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_collation'::regclass AND refobjid = c.oid)
UNION ALL
SELECT DISTINCT jsonb_build_array('tablespace', s.oid::text, spcname)
  FROM pg_class c JOIN pg_tablespace s ON s.oid = reltablespace
 WHERE s.oid >= 16384;
