-- The table has the events of images and instances. The transaction that changes a status also inserts its event.

CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL CHECK (kind IN ('image', 'instance')),
    subject_id integer NOT NULL,
    name text NOT NULL,
    -- The value is NULL before the first status, and after the last one.
    before text,
    after text,
    -- The owner of the instance at that time, or NULL for images.
    owner text,
    caller text NOT NULL,
    reason text NOT NULL,
    request_id text NOT NULL
);

CREATE INDEX events_subject_idx ON events (kind, subject_id, id);
CREATE INDEX events_owner_idx ON events (owner, id);
CREATE INDEX events_caller_idx ON events (caller, id);
