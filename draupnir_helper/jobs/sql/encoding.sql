-- The first file of every session. Names in an SQL_ASCII database may have any encoding; the server would refuse them from a
-- client whose encoding is UTF-8.
SELECT CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END AS client_encoding
\gset
\encoding :client_encoding
