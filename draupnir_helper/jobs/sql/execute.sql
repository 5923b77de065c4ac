-- Run the statements in the temporary table statement(text). Names of roles and databases are shared by all databases, so
-- their bytes may not be in the encoding of this one. The server refuses such a statement from psql, but not inside a block.
SELECT text FROM statement WHERE text ~ '^[ -~]*$'
\gexec
SELECT EXISTS (SELECT FROM statement WHERE text !~ '^[ -~]*$') AS other_bytes
\gset
\if :other_bytes
DO 'DECLARE each text; BEGIN
      FOR each IN SELECT text FROM statement WHERE text !~ ''^[ -~]*$'' LOOP EXECUTE each; END LOOP;
    END';
\endif
DROP TABLE statement;
