-- Sequences restart at the end of their range; otherwise an id found on the disk could exhaust a sequence for good. Inserts
-- skip ids that are in use in the metadata or on the disk.

ALTER SEQUENCE image_ids CYCLE;
ALTER SEQUENCE instance_ids CYCLE;
ALTER SEQUENCE trial_ids CYCLE;
ALTER TABLE images ALTER COLUMN id DROP DEFAULT;
