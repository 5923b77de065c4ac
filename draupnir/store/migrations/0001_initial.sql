-- Images and instances. Ids stay below wire.MAX_ID, because uids derive from them.

CREATE SEQUENCE image_ids AS integer MAXVALUE 67108863;

CREATE TABLE images (
    id integer PRIMARY KEY DEFAULT nextval('image_ids'),
    status text NOT NULL CHECK (status IN ('awaiting_upload', 'finalising', 'ready', 'failed', 'destroying')),
    step text CHECK (step IN ('seal', 'extract', 'finalise', 'publish', 'trial')),
    backed_up_at timestamptz NOT NULL,
    anonymisation_script text NOT NULL,
    activity text,
    done_bytes bigint,
    total_bytes bigint,
    step_started_at timestamptz,
    -- The row keeps these while the image is finalised again. If nothing was uploaded, the image returns to this state.
    failure_code text,
    failure_detail text,
    postgres_major integer,
    size_bytes bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'finalising') = (step IS NOT NULL)),
    CHECK (status <> 'failed' OR (failure_code IS NOT NULL AND failure_detail IS NOT NULL)),
    CHECK (status <> 'ready' OR postgres_major IS NOT NULL)
);

-- Trials have a separate sequence, so that the ids of users' instances start at 1.
CREATE SEQUENCE instance_ids AS integer MAXVALUE 49999999;
CREATE SEQUENCE trial_ids AS integer MINVALUE 50000000 MAXVALUE 67108863;

CREATE TABLE instances (
    id integer PRIMARY KEY,
    image_id integer NOT NULL REFERENCES images (id),
    owner text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('use', 'pool', 'trial')),
    status text NOT NULL CHECK (status IN ('creating', 'running', 'destroying')),
    port integer NOT NULL CONSTRAINT instances_port_key UNIQUE,
    sleep_after_s integer NOT NULL CHECK (sleep_after_s >= 0),
    network text NOT NULL CHECK (network IN ('proxied', 'direct')),
    authority_certificate text NOT NULL,
    authority_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX instances_image_id_idx ON instances (image_id);
