-- Whether the provider rotates the user's refresh tokens, if known; whether the answer with a new token may have been lost;
-- and for how many seconds of the daemon's run time the provider has refused the token after such a loss.

ALTER TABLE users
    ADD COLUMN rotates boolean,
    ADD COLUMN unsettled boolean NOT NULL DEFAULT false,
    ADD COLUMN refused_s double precision CHECK (refused_s >= 0);
