"""The stories of images and instances: intent to the metadata, idempotent steps, then what was observed."""
