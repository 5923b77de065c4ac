-- Run in every database before the hand-over. :trusted has the oids of functions of Postgres and extensions, :powerless the
-- oids of functions that the data put into pg_catalog. The superuser may call those implicitly, and also functions of the
-- data behind operators in pg_catalog or behind casts between Postgres's own types. So all of these run as a role without
-- rights, of which draupnir is not a member. This file compares only oid with oid, since other operators may be the data's.
CREATE TEMPORARY TABLE powerless AS
  SELECT unnest(:'powerless'::oid[]) AS oid
   UNION
  SELECT castfunc FROM pg_cast
    JOIN pg_type source ON source.oid = castsource JOIN pg_type target ON target.oid = casttarget
   WHERE castfunc <> 0::oid AND source.typnamespace = 11::oid AND target.typnamespace = 11::oid
     AND castfunc <> ALL (:'trusted'::oid[])
   UNION
  SELECT oprcode::oid FROM pg_operator
   WHERE oprnamespace = 11::oid AND oprcode::oid <> ALL (:'trusted'::oid[]);
SELECT format('ALTER ROUTINE %s OWNER TO pg_signal_backend', powerless.oid::regprocedure)
  FROM powerless JOIN pg_proc ON pg_proc.oid = powerless.oid WHERE proowner <> 4200::oid
\gexec
SELECT format('ALTER ROUTINE %s SECURITY DEFINER', powerless.oid::regprocedure)
  FROM powerless JOIN pg_proc ON pg_proc.oid = powerless.oid WHERE NOT prosecdef
\gexec
DROP TABLE powerless;
