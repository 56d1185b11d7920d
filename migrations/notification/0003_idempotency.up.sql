-- First answers of mutations, kept for a day so that a replay gets the same one (mesh/database/idempotency).

CREATE TABLE idempotency_keys (
    organization_id uuid NOT NULL,
    principal text NOT NULL,
    method text NOT NULL,
    idempotency_key text NOT NULL,
    request_hash bytea NOT NULL,
    data_key_version integer,
    response bytea,
    create_time timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (organization_id, principal, method, idempotency_key),
    CONSTRAINT idempotency_keys_response_check CHECK ((response IS NULL) = (data_key_version IS NULL)),
    CONSTRAINT idempotency_keys_request_hash_check CHECK (octet_length(request_hash) = 32)
);
CREATE INDEX idempotency_keys_create_time_idx ON idempotency_keys (create_time);
COMMENT ON INDEX idempotency_keys_create_time_idx IS 'across tenants: the daily clean-up goes by age';
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency_keys TO tollway_notification
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON idempotency_keys TO tollway_notification_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON idempotency_keys TO tollway_notification;
-- UPDATE because the clean-up locks the rows that it is about to delete (FOR UPDATE SKIP LOCKED).
GRANT SELECT, UPDATE, DELETE ON idempotency_keys TO tollway_notification_system;
