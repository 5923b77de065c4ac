-- Ids begin again at the end of their range. What is on the disk could otherwise bring a sequence to its end, for good.
-- Whoever inserts a row passes over the ids that the metadata or the disk have.

ALTER SEQUENCE image_ids CYCLE;
ALTER SEQUENCE instance_ids CYCLE;
ALTER SEQUENCE trial_ids CYCLE;
ALTER TABLE images ALTER COLUMN id DROP DEFAULT;
