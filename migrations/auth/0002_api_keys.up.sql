-- API keys, and the notice that every edge waits for when one of them changes.

CREATE TABLE api_keys (
    organization_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    digest bytea NOT NULL,
    pepper_version integer NOT NULL,
    name text NOT NULL,
    hint text NOT NULL,
    mode text NOT NULL,
    scopes text[] NOT NULL DEFAULT '{}',
    allowed_ips text[] NOT NULL DEFAULT '{}',
    external_subject text NOT NULL DEFAULT '',
    creator_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz,
    revoke_time timestamptz,
    last_use_time timestamptz,
    CONSTRAINT api_keys_pkey PRIMARY KEY (organization_id, api_key_id),
    CONSTRAINT api_keys_digest_key UNIQUE (digest),
    CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations (organization_id),
    CONSTRAINT api_keys_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT api_keys_name_check CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_mode_check CHECK (mode IN ('live', 'test')),
    CONSTRAINT api_keys_scopes_check CHECK (cardinality(scopes) <= 50)
);
COMMENT ON INDEX api_keys_digest_key IS 'across tenants: an edge knows the key before it knows the tenant';
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON api_keys TO tollway_auth_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON api_keys TO tollway_auth;
GRANT SELECT, INSERT, UPDATE ON api_keys TO tollway_auth_system;

-- The trigger, not the service, sends the notice: a change made by hand in psql reaches the edges as well.
CREATE FUNCTION notify_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('auth_key_changes', 'key ' || NEW.organization_id || ' ' || NEW.api_key_id);
    RETURN NULL;
END
$$;
CREATE FUNCTION notify_organization_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('auth_key_changes', 'organization ' || NEW.organization_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER api_keys_notify_insert AFTER INSERT ON api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_key_change();
-- last_use_time is left out: it changes with traffic and no edge cares.
CREATE TRIGGER api_keys_notify_update
    AFTER UPDATE OF mode, scopes, allowed_ips, external_subject, expire_time, revoke_time, digest ON api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_key_change();
CREATE TRIGGER organizations_notify_state AFTER UPDATE OF state ON organizations
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION notify_organization_change();
