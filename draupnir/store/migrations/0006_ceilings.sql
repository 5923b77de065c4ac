-- Add the ceiling of each instance, and its state. Instances that were created before this migration have no ceiling.

ALTER TABLE instances
    DROP CONSTRAINT instances_status_check,
    ADD CONSTRAINT instances_status_check
        CHECK (status IN ('creating', 'running', 'stopped', 'closed', 'destroying')),
    ADD COLUMN max_bytes bigint CHECK (max_bytes > 0),
    -- The instance has reached its ceiling, so transactions are read-only by default.
    ADD COLUMN is_full boolean NOT NULL DEFAULT false,
    -- The instance has got the reserve for WAL a second time.
    ADD COLUMN reserve_granted boolean NOT NULL DEFAULT false,
    ADD COLUMN stop_reason text,
    ADD CHECK (status <> 'stopped' OR stop_reason IS NOT NULL);
