-- The role draupnir of such an instance is a superuser. The column `superuser` of an image is the name of its superuser,
-- which cannot log in.
ALTER TABLE instances ADD COLUMN is_superuser boolean NOT NULL DEFAULT false;
