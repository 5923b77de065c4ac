-- Sequences restart at the end of their range. Otherwise an id that is found on the disk could exhaust a sequence. Inserts skip
-- ids that are in use in the metadata or on the disk.

ALTER SEQUENCE image_ids CYCLE;
ALTER SEQUENCE instance_ids CYCLE;
ALTER SEQUENCE trial_ids CYCLE;
ALTER TABLE images ALTER COLUMN id DROP DEFAULT;
