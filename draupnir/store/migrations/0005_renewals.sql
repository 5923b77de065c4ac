-- `rotates` is true if the provider rotates the user's refresh tokens. `unsettled` is true if the answer with a new token may be
-- lost. `refused_s` counts the seconds of the daemon's run time for which the provider has refused the token after such a loss.

ALTER TABLE users
    ADD COLUMN rotates boolean,
    ADD COLUMN unsettled boolean NOT NULL DEFAULT false,
    ADD COLUMN refused_s double precision CHECK (refused_s >= 0);
