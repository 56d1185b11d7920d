-- The tenant role reads what its RPCs show and writes what they change, column by column. Organizations, people and
-- memberships are changed by the system role alone; a later migration grants what a later RPC needs.

REVOKE INSERT, UPDATE ON organizations FROM tollway_auth;
REVOKE INSERT, UPDATE, DELETE ON memberships FROM tollway_auth;

-- service_accounts.platform_role makes an operator, and the digest is what the token is compared with.
REVOKE SELECT, INSERT, UPDATE ON service_accounts FROM tollway_auth;
GRANT SELECT (organization_id, service_account_id, name, role, hint, create_time, expire_time, revoke_time)
    ON service_accounts TO tollway_auth;

REVOKE SELECT, INSERT, UPDATE ON api_keys FROM tollway_auth;
GRANT SELECT (organization_id, api_key_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id,
              create_time, expire_time, revoke_time, last_use_time) ON api_keys TO tollway_auth;
GRANT INSERT (organization_id, api_key_id, digest, pepper_version, name, hint, mode, scopes, allowed_ips,
              external_subject, creator_id, create_time, expire_time) ON api_keys TO tollway_auth;
GRANT UPDATE (revoke_time) ON api_keys TO tollway_auth;

REVOKE UPDATE ON idempotency_keys FROM tollway_auth;
GRANT UPDATE (data_key_version, response) ON idempotency_keys TO tollway_auth;

-- A person is seen by the organizations that they are a member of.
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
ALTER TABLE people FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON people FOR SELECT TO tollway_auth USING (EXISTS (
    SELECT FROM memberships AS m
    WHERE m.person_id = people.person_id
      AND m.organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid
));
CREATE POLICY system ON people TO tollway_auth_system USING (true) WITH CHECK (true);

-- A job is its organization's: the tenant role cannot cause work in another one's name.
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON jobs FOR INSERT TO tollway_auth
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON jobs TO tollway_auth_system USING (true) WITH CHECK (true);

-- Revoked is for good, whoever asks.
CREATE FUNCTION refuse_restored_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a revoked API key stays revoked' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER api_keys_stay_revoked BEFORE UPDATE OF revoke_time ON api_keys
    FOR EACH ROW WHEN (OLD.revoke_time IS NOT NULL AND NEW.revoke_time IS DISTINCT FROM OLD.revoke_time)
    EXECUTE FUNCTION refuse_restored_key();
