-- Who has left, and what is to become of their instances. Time is counted while the daemon runs and not read off a clock,
-- so that one that is set wrongly destroys nothing.

ALTER TABLE users
    ADD COLUMN checked_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN left_at timestamptz;

ALTER TABLE instances
    DROP CONSTRAINT instances_status_check,
    ADD CONSTRAINT instances_status_check CHECK (status IN ('creating', 'running', 'closed', 'destroying')),
    ADD COLUMN closed_s double precision CHECK (closed_s >= 0),
    -- Whom the provider knew its owner as. The address may be given to somebody else, who is to have nothing of it.
    ADD COLUMN leaver_issuer text,
    ADD COLUMN leaver_subject text,
    ADD CHECK (status <> 'closed' OR closed_s IS NOT NULL);
