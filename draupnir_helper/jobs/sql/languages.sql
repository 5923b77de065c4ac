-- Run in every database before functions.sql, because the verdict on functions depends on their languages.
-- A language is trusted if its handler is one of those that give no access to the machine.
UPDATE pg_language SET lanpltrusted = false
 WHERE lanpltrusted AND lanname <> 'sql'
   AND lanplcallfoid NOT IN (
         SELECT oid FROM pg_proc
          WHERE prosrc IN ('plpgsql_call_handler', 'plperl_call_handler', 'pltcl_call_handler', 'plv8_call_handler'));
