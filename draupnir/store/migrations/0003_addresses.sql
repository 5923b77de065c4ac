-- The table has the allowlists of instances, if the operator has enabled them. A later request from the same address renews a
-- `seen` entry, but not an `added` entry.

CREATE TABLE addresses (
    instance_id integer NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    network cidr NOT NULL,
    origin text NOT NULL CHECK (origin IN ('seen', 'added')),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, network)
);
