-- Run in every database before anything is handed over, with the oids :trusted of what Postgres and extensions made, and
-- those :powerless of what the data put into pg_catalog. Those, and what the data have behind operators in pg_catalog and
-- behind casts between Postgres's own types, run wherever the superuser does. So they get the rights of a role without any,
-- which draupnir is no member of. No operator here has anything but oids on both sides: one of the data may.
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
