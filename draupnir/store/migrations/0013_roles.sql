-- What the finalise job found: the superuser, which cannot log in, and the database to connect to by default. NULL for
-- images that were finalised before; only the role draupnir can log in to their instances.

ALTER TABLE images ADD COLUMN superuser text, ADD COLUMN database text;
