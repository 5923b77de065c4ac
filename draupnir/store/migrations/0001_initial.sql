-- Images and instances. Ids are never given twice, and stay below wire.MAX_ID because uids are made from them.

CREATE TABLE images (
    id integer GENERATED ALWAYS AS IDENTITY (MAXVALUE 67108863) PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('awaiting_upload', 'finalising', 'ready', 'failed', 'destroying')),
    step text CHECK (step IN ('seal', 'extract', 'finalise', 'publish', 'trial')),
    backed_up_at timestamptz NOT NULL,
    anonymisation_script text NOT NULL,
    activity text,
    done_bytes bigint,
    total_bytes bigint,
    step_started_at timestamptz,
    -- Kept while the image is finalised again: what it goes back to when nothing has been uploaded.
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

CREATE TABLE instances (
    id integer GENERATED ALWAYS AS IDENTITY (MAXVALUE 67108863) PRIMARY KEY,
    image_id integer NOT NULL REFERENCES images (id),
    owner text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('use', 'trial')),
    status text NOT NULL CHECK (status IN ('creating', 'running', 'destroying')),
    port integer NOT NULL CONSTRAINT instances_port_key UNIQUE,
    authority_certificate text NOT NULL,
    authority_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX instances_image_id_idx ON instances (image_id);
