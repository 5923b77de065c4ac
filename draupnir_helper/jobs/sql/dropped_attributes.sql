-- Run in every database: list the composite types that lost an attribute and are the type of a column, also within arrays and domains,
-- as JSON. DROP ATTRIBUTE changes no row, and VACUUM FULL copies a composite value as it is.
WITH RECURSIVE contains AS (
  SELECT t.oid AS type, t.oid AS used FROM pg_type t JOIN pg_attribute ON attrelid = typrelid WHERE attisdropped AND typtype = 'c'
     AND EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND relkind = 'c')
   UNION
  SELECT contains.type, t.oid FROM contains JOIN pg_type t
      ON used IN (t.typelem, t.typbasetype)
      OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.typrelid AND atttypid = used AND NOT attisdropped))
SELECT to_json(type::regtype::text) FROM contains JOIN pg_attribute ON atttypid = used JOIN pg_class c ON c.oid = attrelid
 WHERE relkind IN ('r', 'm') AND NOT attisdropped GROUP BY type;
