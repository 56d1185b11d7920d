DROP POLICY system ON jobs;
DROP POLICY tenant ON jobs;
ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs DISABLE ROW LEVEL SECURITY;
REVOKE UPDATE (data_key_version, response) ON idempotency_keys FROM tollway_notification;
GRANT UPDATE ON idempotency_keys TO tollway_notification;
REVOKE UPDATE (state, last_error, end_time) ON emails FROM tollway_notification;
GRANT UPDATE ON emails TO tollway_notification;
