-- Triggers wrote to these tables while the image's script ran. The column is NULL until the image was finalised.

ALTER TABLE images ADD COLUMN trigger_tables text[];
