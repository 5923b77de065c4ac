-- Tables to which triggers wrote while the image's script ran; NULL until it was finalised.

ALTER TABLE images ADD COLUMN trigger_tables text[];
