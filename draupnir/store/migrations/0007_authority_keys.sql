-- Authority keys are encrypted. Those that an earlier version has written in plain text stay in a column of their own
-- until the daemon, which alone has the key, has encrypted them.

ALTER TABLE instances RENAME COLUMN authority_key TO plain_authority_key;
ALTER TABLE instances
    ALTER COLUMN plain_authority_key DROP NOT NULL,
    ADD COLUMN authority_key bytea,
    ADD CONSTRAINT instances_authority_key_check CHECK (num_nonnulls(plain_authority_key, authority_key) = 1);
