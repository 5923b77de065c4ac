-- Whether the provider renews somebody's refresh tokens, as far as is known; whether it may have renewed this one unheard;
-- and for how many seconds of the daemon's running it has been refusing one of which that is so.

ALTER TABLE users
    ADD COLUMN rotates boolean,
    ADD COLUMN unsettled boolean NOT NULL DEFAULT false,
    ADD COLUMN refused_s double precision CHECK (refused_s >= 0);
