-- Run in every database after the script: list the tables that were written to during it. The second value is true if the
-- function of a trigger that fired names the table. Call functions instead of views, because the data may have replaced views.
SELECT jsonb_build_array(
         concat_ws('.', current_database(), nspname, relname),
         EXISTS (SELECT FROM pg_proc p
                  WHERE pg_stat_get_function_calls(p.oid) > 0 AND p.prorettype = 'trigger'::regtype
                    AND strpos(lower(p.prosrc), lower(c.relname)) > 0),
         relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 WHERE relkind IN ('r', 'm', 'p') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0
 ORDER BY nspname, relname;
