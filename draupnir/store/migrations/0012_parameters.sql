-- Settings of Postgres, name to value. Those that the operator gave for an image; those that its instances have, known
-- once its upload is extracted; and those of an instance, which override those of its image.
ALTER TABLE images ADD COLUMN given_settings jsonb NOT NULL DEFAULT '{}';
ALTER TABLE images ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
