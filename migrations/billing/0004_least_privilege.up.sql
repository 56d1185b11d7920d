-- The tenant role begins subscriptions and does not change them; a later migration grants what a later RPC needs.
REVOKE UPDATE ON subscriptions FROM tollway_billing, tollway_billing_system;
REVOKE UPDATE ON idempotency_keys FROM tollway_billing;
GRANT UPDATE (data_key_version, response) ON idempotency_keys TO tollway_billing;

-- A job is its organization's: the tenant role cannot cause work in another one's name.
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs FOR INSERT TO tollway_billing
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON jobs TO tollway_billing_system USING (true) WITH CHECK (true);
