"""Operations on images and instances: write the intent to the metadata, run idempotent steps, return the result."""
