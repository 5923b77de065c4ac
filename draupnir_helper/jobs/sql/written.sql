-- Run in every database after the script: the tables that were written to while it ran. The second value tells whether the function of a trigger that fired names the table.
SELECT jsonb_build_array(
         concat_ws('.', current_database(), schemaname, relname),
         EXISTS (SELECT FROM pg_stat_user_functions f JOIN pg_proc p ON p.oid = f.funcid
                  WHERE f.calls > 0 AND p.prorettype = 'trigger'::regtype
                    AND strpos(lower(p.prosrc), lower(t.relname)) > 0),
         relname)
  FROM pg_stat_user_tables t
 WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
 ORDER BY schemaname, relname;
