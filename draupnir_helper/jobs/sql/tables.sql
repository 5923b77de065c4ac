-- Run in every database in :sessions sessions: write this :session's share of the statements to :file, and run it. The largest
-- tables come first, and each :changed one is rewritten before. ANALYZE of a partitioned table, which comes last, analyses the
-- partitions, too. :parents are the partitioned tables that had statistics. Each statement is a line with the oid of its table.
\o :file
SELECT CASE WHEN oid::regclass::text ~ '^[a-z0-9_.]+$' THEN format('%s %s; -- %s', command, oid::regclass, oid)
            -- A name that may contain the end of a line is quoted.
            ELSE format('SELECT format(%L, oid::regclass) FROM pg_class WHERE oid = %s \gexec', command || ' %s', oid) END
  FROM (SELECT oid, row_number() OVER (ORDER BY relkind = 'p', relpages DESC, oid) AS number,
               ARRAY[CASE WHEN oid = ANY (:'changed'::oid[]) THEN 'VACUUM (FULL)' END,
                     CASE WHEN relkind = 'p' THEN 'ANALYZE' WHEN is_below THEN :'vacuum' ELSE :'vacuum_analyze' END] AS commands
          FROM (SELECT c.oid, relkind, relpages,
                       relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(c.oid)
                                                   WHERE relid <> c.oid AND relid = ANY (:'parents'::oid[])) AS is_below
                  FROM pg_class c
                 WHERE relpersistence <> 't'
                   AND (relkind IN ('r', 'm') OR relkind = 'p' AND c.oid = ANY (:'parents'::oid[]))) AS found
         WHERE relkind <> 'p' OR NOT is_below) AS numbered, unnest(commands) WITH ORDINALITY AS steps(command, step)
 WHERE number % :sessions = :session AND command IS NOT NULL ORDER BY number, step;
\o
\i :file
