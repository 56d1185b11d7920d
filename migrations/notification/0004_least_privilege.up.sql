-- The tenant role says what became of an e-mail; it cannot change what was to be sent, and to whom.

REVOKE UPDATE ON emails FROM tollway_notification;
GRANT UPDATE (state, last_error, end_time) ON emails TO tollway_notification;
REVOKE UPDATE ON idempotency_keys FROM tollway_notification;
GRANT UPDATE (data_key_version, response) ON idempotency_keys TO tollway_notification;

-- A job is its organization's: the tenant role cannot cause work in another one's name.
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs FOR INSERT TO tollway_notification
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON jobs TO tollway_notification_system USING (true) WITH CHECK (true);
