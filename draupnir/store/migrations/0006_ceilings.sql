-- How much each instance may write, and what has become of that. There is no ceiling for those made before this.

ALTER TABLE instances
    DROP CONSTRAINT instances_status_check,
    ADD CONSTRAINT instances_status_check
        CHECK (status IN ('creating', 'running', 'stopped', 'closed', 'destroying')),
    ADD COLUMN max_bytes bigint CHECK (max_bytes > 0),
    -- It has met its ceiling: Postgres writes only what it is told to write in spite of that.
    ADD COLUMN is_full boolean NOT NULL DEFAULT false,
    -- The reserve for its log has been granted a second time.
    ADD COLUMN reserve_granted boolean NOT NULL DEFAULT false,
    ADD COLUMN stop_reason text,
    ADD CHECK (status <> 'stopped' OR stop_reason IS NOT NULL);
