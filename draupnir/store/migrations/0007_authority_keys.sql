-- Authority keys are encrypted from now on. Plain-text keys of an earlier version stay in a separate column until the daemon,
-- which has the encryption key, has encrypted them.

ALTER TABLE instances RENAME COLUMN authority_key TO plain_authority_key;
ALTER TABLE instances
    ALTER COLUMN plain_authority_key DROP NOT NULL,
    ADD COLUMN authority_key bytea,
    ADD CONSTRAINT instances_authority_key_check CHECK (num_nonnulls(plain_authority_key, authority_key) = 1);
