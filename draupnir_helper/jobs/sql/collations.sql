-- Run in every database before the script: list all objects that depend on a collation whose recorded version is not the server's.
-- Postgres records versions of databases from 15 on, and of libc's collations from 13 on; a version that is missing counts
-- as another one, except for locales that compare bytes. The columns of pg_database differ by major, so read them as JSON.
SELECT CASE WHEN current_setting('server_version_num')::int >= 150000
            THEN 'pg_database_collation_actual_version(d.oid)' ELSE 'NULL::text' END AS of_database
\gset
SELECT jsonb_agg(known) AS stale
  FROM (SELECT 100::oid AS oid, datname = 'template0' AS is_template0,
               coalesce(row ->> 'datlocprovider', 'c') AS provider, datcollate AS locale,
               'of the database (' || coalesce(row ->> 'datlocale', row ->> 'daticulocale', datcollate) || ')' AS name,
               row ->> 'datcollversion' AS recorded, :of_database AS actual
          FROM pg_database d, to_jsonb(d) AS row WHERE datname = current_database()
         UNION ALL
        SELECT oid, false, collprovider::text, collcollate, collname, collversion, pg_collation_actual_version(oid)
          FROM pg_collation
         WHERE oid <> 100 AND collprovider <> 'd'
           -- Check the collations of Postgres, those in use, and one of each version. All collations would take too long.
           AND (oid < 12000 OR oid IN (SELECT refobjid FROM pg_depend WHERE refclassid = 'pg_collation'::regclass)
             OR oid IN (SELECT min(oid) FROM pg_collation GROUP BY collprovider, collversion))) AS known
 WHERE CASE WHEN provider = 'c' AND locale ~* '^(c|posix|c\..*)$' THEN false
            -- initdb leaves out the version of template0, which has no data.
            WHEN is_template0 AND recorded IS NULL THEN false
            WHEN provider = 'c' THEN recorded IS NULL OR actual IS NULL OR recorded <> actual
            ELSE recorded IS DISTINCT FROM actual END
\gset
\if :{?stale}
CREATE TEMPORARY TABLE stale AS
  SELECT * FROM jsonb_to_recordset(:'stale') AS (oid oid, name text, recorded text, actual text);
-- Ranges and composite types compare with collations of their own.
CREATE TEMPORARY TABLE stale_type AS
  WITH RECURSIVE part(element, whole) AS (
    SELECT typelem, oid FROM pg_type WHERE typelem <> 0
     UNION ALL SELECT typbasetype, oid FROM pg_type WHERE typtype = 'd'
     UNION ALL SELECT rngsubtype, rngtypid FROM pg_range
     UNION ALL SELECT rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid FROM pg_range r
     UNION ALL SELECT atttypid, reltype FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
                WHERE attnum > 0 AND NOT attisdropped AND reltype <> 0),
  found(oid, via) AS (
    SELECT rngtypid, rngcollation FROM pg_range WHERE rngcollation IN (SELECT oid FROM stale)
     UNION
    SELECT reltype, attcollation FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
     WHERE attnum > 0 AND NOT attisdropped AND reltype <> 0 AND attcollation IN (SELECT oid FROM stale)
     UNION
    SELECT whole, via FROM found JOIN part ON element = found.oid)
  SELECT oid, via FROM found;
CREATE TEMPORARY TABLE dependent AS
  SELECT DISTINCT indexrelid AS oid, via
    FROM (SELECT indexrelid, unnest(indcollation::oid[]) AS via FROM pg_index
           UNION ALL
          SELECT indexrelid, via FROM pg_index JOIN pg_attribute ON attrelid = indexrelid JOIN stale_type t ON t.oid = atttypid
           UNION ALL
          SELECT indexrelid, m[1]::oid
            FROM pg_index, regexp_matches(concat(indexprs::text, indpred::text), 'collid ([0-9]+)', 'g') AS m
           WHERE indexprs IS NOT NULL OR indpred IS NOT NULL) AS uses
    JOIN pg_index USING (indexrelid) JOIN pg_class c ON c.oid = indexrelid
   WHERE via IN (SELECT oid FROM stale) AND indisvalid AND relkind = 'i';
SELECT jsonb_build_object('collation', concat(name, ': ', coalesce(recorded, 'no version'), ' to ', coalesce(actual, 'unknown')))
  FROM stale WHERE oid = 100 OR oid IN (SELECT via FROM dependent) ORDER BY stale.oid;
SELECT jsonb_build_object('index', c.oid::bigint, 'name', c.oid::regclass, 'table', indrelid::regclass)
  FROM pg_class c JOIN pg_index ON indexrelid = c.oid WHERE c.oid IN (SELECT oid FROM dependent) ORDER BY relpages DESC, c.oid;
-- Equality of a deterministic collation does not depend on its version, but order does.
SELECT DISTINCT jsonb_build_object('constraint', conname, 'table',
                                   CASE WHEN conrelid = 0 THEN contypid::regtype::text ELSE conrelid::regclass::text END)
  FROM pg_constraint,
       regexp_matches(conbin::text, ':opno ([0-9]+)[^{}]*:inputcollid ([0-9]+)', 'g') AS m
  JOIN pg_operator o ON o.oid = m[1]::oid
 WHERE contype = 'c' AND oprname IN ('<', '<=', '>', '>=') AND m[2]::oid IN (SELECT oid FROM stale);
SELECT DISTINCT jsonb_build_object('partitioned', partrelid::regclass)
  FROM pg_partitioned_table, unnest(partcollation::oid[]) AS via
 WHERE partstrat = 'r' AND via IN (SELECT oid FROM stale);
DROP TABLE dependent, stale_type, stale;
\endif
