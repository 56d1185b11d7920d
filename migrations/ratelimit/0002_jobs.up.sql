-- Work to be done after the fact that caused it has been committed (mesh/jobs).

CREATE TABLE jobs (
    job_id uuid NOT NULL,
    kind text NOT NULL,
    organization_id uuid,
    payload jsonb NOT NULL,
    dedupe_key text,
    state text NOT NULL DEFAULT 'queued',
    attempt_count integer NOT NULL DEFAULT 0,
    run_time timestamptz NOT NULL,
    lease_expire_time timestamptz,
    lease_id uuid,
    last_error text,
    trace_context text,
    create_time timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    CONSTRAINT jobs_pkey PRIMARY KEY (job_id),
    CONSTRAINT jobs_dedupe_key UNIQUE (kind, dedupe_key),
    CONSTRAINT jobs_state_check CHECK (state IN ('queued', 'running', 'done', 'dead')),
    CONSTRAINT jobs_payload_check CHECK (octet_length(payload::text) <= 65536)
);
COMMENT ON TABLE jobs IS 'not a tenant table: a queue that one worker reads across tenants; the tenant role can only add to it';
-- Done jobs outnumber waiting ones by far and no claim ever looks at them.
CREATE INDEX jobs_due_idx ON jobs (run_time, job_id) WHERE state = 'queued';
CREATE INDEX jobs_lease_idx ON jobs (lease_expire_time) WHERE state = 'running';
CREATE INDEX jobs_finish_idx ON jobs (finish_time) WHERE state IN ('done', 'dead');
GRANT INSERT ON jobs TO tollway_ratelimit;
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs TO tollway_ratelimit_system;

CREATE FUNCTION notify_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ratelimit_jobs', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_notify AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION notify_job();

-- A job is its organization's: the tenant role cannot cause work in another one's name.
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs FOR INSERT TO tollway_ratelimit
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON jobs TO tollway_ratelimit_system USING (true) WITH CHECK (true);
