-- Users, their tokens, and pending sign-ins. The content is not enough to sign in: secrets are stored as SHA-256, and refresh
-- tokens are encrypted with a key that is not in the database.

CREATE TABLE users (
    email text PRIMARY KEY,
    issuer text NOT NULL,
    subject text NOT NULL,
    refresh_token bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    signed_in_at timestamptz NOT NULL DEFAULT now()
);

-- A sign-in creates a session; users create named tokens for programs. The bearer of the shared secret may have tokens, but
-- has no row in users, so there is no foreign key.
CREATE TABLE tokens (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    owner text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('session', 'named')),
    name text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('full', 'read_only')),
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz
);

CREATE INDEX tokens_owner_idx ON tokens (owner);
CREATE UNIQUE INDEX tokens_owner_name_idx ON tokens (owner, name) WHERE kind = 'named';

-- One row for each sign-in, from the client's request until it has its token. Each digest is cleared when it is used.
CREATE TABLE sign_ins (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    link_digest bytea UNIQUE,
    browser_digest bytea,
    state_digest bytea UNIQUE,
    code_digest bytea UNIQUE,
    code_challenge text NOT NULL,
    loopback_port integer,
    email text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
