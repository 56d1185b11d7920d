-- Every e-mail that was taken, and what became of it.

CREATE TABLE emails (
    organization_id uuid NOT NULL,
    email_id uuid NOT NULL,
    recipient text NOT NULL,
    template text NOT NULL,
    parameters jsonb NOT NULL,
    state text NOT NULL DEFAULT 'queued',
    last_error text,
    create_time timestamptz NOT NULL,
    end_time timestamptz,
    CONSTRAINT emails_pkey PRIMARY KEY (organization_id, email_id),
    CONSTRAINT emails_state_check CHECK (state IN ('queued', 'delivered', 'dead')),
    CONSTRAINT emails_end_time_check CHECK ((state = 'queued') = (end_time IS NULL)),
    CONSTRAINT emails_parameters_check CHECK (jsonb_typeof(parameters) = 'object')
);
CREATE INDEX emails_end_time_idx ON emails (end_time) WHERE state = 'delivered';
COMMENT ON INDEX emails_end_time_idx IS 'across tenants: the daily clean-up goes by age';
ALTER TABLE emails ENABLE ROW LEVEL SECURITY;
ALTER TABLE emails FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON emails TO tollway_notification
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON emails TO tollway_notification_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON emails TO tollway_notification;
-- UPDATE, because the clean-up locks what it deletes.
GRANT SELECT, UPDATE, DELETE ON emails TO tollway_notification_system;
