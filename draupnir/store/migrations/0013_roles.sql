-- The finalise job finds the superuser, which cannot log in, and the database to connect to by default. Both are NULL for images
-- that an older version finalised. Only the role draupnir can log in to their instances.

ALTER TABLE images ADD COLUMN superuser text, ADD COLUMN database text;
