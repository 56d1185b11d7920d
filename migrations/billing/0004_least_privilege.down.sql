DROP POLICY system ON jobs;
DROP POLICY tenant ON jobs;
ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY;
ALTER TABLE jobs DISABLE ROW LEVEL SECURITY;
REVOKE UPDATE (data_key_version, response) ON idempotency_keys FROM tollway_billing;
GRANT UPDATE ON idempotency_keys TO tollway_billing;
GRANT UPDATE ON subscriptions TO tollway_billing, tollway_billing_system;
