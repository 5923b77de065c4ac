-- From where the port of an instance may be reached, where the operator has turned allow-lists on. An address that its
-- owner was seen from is renewed by being seen again; one that they added stays what it is.

CREATE TABLE addresses (
    instance_id integer NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    network cidr NOT NULL,
    origin text NOT NULL CHECK (origin IN ('seen', 'added')),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (instance_id, network)
);
