-- Add the revocation of users, and the retention of their instances. The daemon counts the time while it runs, so that a wrong
-- clock does not destroy an instance.

ALTER TABLE users
    ADD COLUMN checked_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN left_at timestamptz;

ALTER TABLE instances
    DROP CONSTRAINT instances_status_check,
    ADD CONSTRAINT instances_status_check CHECK (status IN ('creating', 'running', 'closed', 'destroying')),
    ADD COLUMN closed_s double precision CHECK (closed_s >= 0),
    -- The owner's identity at the provider. The provider may assign the e-mail address to another user, who gets no access.
    ADD COLUMN leaver_issuer text,
    ADD COLUMN leaver_subject text,
    ADD CHECK (status <> 'closed' OR closed_s IS NOT NULL);
