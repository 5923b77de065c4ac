-- These tables have users, their tokens, and pending sign-ins. Their content is not enough to sign in: secrets are stored as
-- SHA-256, and refresh tokens are encrypted with a key that is not in the database.

CREATE TABLE users (
    email text PRIMARY KEY,
    issuer text NOT NULL,
    subject text NOT NULL,
    refresh_token bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    signed_in_at timestamptz NOT NULL DEFAULT now()
);

-- A sign-in creates a session, and users create named tokens for programs. The owner is not a foreign key, because the bearer
-- of the shared secret may have tokens, and the table users has no row for this bearer.
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

-- Each sign-in has a row from the client's request until the client has its token. A used digest is cleared.
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
