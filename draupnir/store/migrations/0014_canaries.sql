-- Values of the source that no file of the image may contain. They are raw data, so they are deleted when the image is ready.
ALTER TABLE images ADD COLUMN canaries jsonb NOT NULL DEFAULT '[]';
