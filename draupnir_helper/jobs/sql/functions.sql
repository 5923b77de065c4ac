-- Run in every database: list Postgres's functions, and all functions that may run with more rights than the caller has. See
-- jobs/catalogs.py.
COPY (
  SELECT p.oid, proowner = 10,
         EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                    AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass),
         proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) a LEFT JOIN pg_authid r ON r.oid = a.grantee
                                    WHERE a.grantee <> 10 AND (rolname IS NULL OR rolname !~ '^pg_'
                                                            OR rolname = 'pg_database_owner')),
         ARRAY(SELECT rolname FROM aclexplode(proacl) a JOIN pg_authid r ON r.oid = a.grantee WHERE rolname ~ '^pg_'),
         -- An aggregate calls its functions with the rights of its owner.
         prokind = 'a' OR lanpltrusted AND lanname NOT IN ('internal', 'c'),
         proargtypes, prolang, nspname, proname, oidvectortypes(proargtypes),
         format_type(prorettype, NULL), lanname, prosrc, probin, prosecdef
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
   WHERE nspname = 'pg_catalog' OR prosecdef OR NOT lanpltrusted OR lanname IN ('internal', 'c')
) TO STDOUT;
SELECT jsonb_agg(jsonb_build_object('name', extname, 'version', extversion, 'schema', nspname) ORDER BY e.oid)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace;
