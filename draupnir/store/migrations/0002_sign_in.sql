-- People, the tokens they were given, and sign-ins under way. Nothing in here signs anybody in: of every secret there is
-- only the SHA-256, and refresh tokens are encrypted with a key that is not in the database.

CREATE TABLE users (
    email text PRIMARY KEY,
    issuer text NOT NULL,
    subject text NOT NULL,
    refresh_token bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    signed_in_at timestamptz NOT NULL DEFAULT now()
);

-- Whoever signs in gets a session; a token is what they make for a program. The shared secret's bearer has no row in
-- users and may have tokens, hence no foreign key.
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

-- One row from the client's wish to sign in until it has its token. Each digest goes when what it is of was used.
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
