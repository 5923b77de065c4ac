-- Run once, with :names of settings. A value set for a role or a database overrides the server's command line.
UPDATE pg_db_role_setting
   SET setconfig = ARRAY(SELECT each FROM unnest(setconfig) AS each
                          WHERE lower(split_part(each, '=', 1)) <> ALL (:'names'::text[]))
 WHERE EXISTS (SELECT FROM unnest(setconfig) AS each WHERE lower(split_part(each, '=', 1)) = ANY (:'names'::text[]));
DELETE FROM pg_db_role_setting WHERE cardinality(setconfig) = 0;
