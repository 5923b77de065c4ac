-- These columns have settings of Postgres, name to value. `given_settings` of an image are the operator's. `settings` of an image
-- are those of its instances, known after the extraction. `settings` of an instance override those of its image.
ALTER TABLE images ADD COLUMN given_settings jsonb NOT NULL DEFAULT '{}';
ALTER TABLE images ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
