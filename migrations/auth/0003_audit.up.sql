-- The audit log. Rows are added and read; no role of the service can change or remove one.

CREATE TABLE audit_entries (
    organization_id uuid NOT NULL,
    audit_entry_id uuid NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    resource text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    create_time timestamptz NOT NULL,
    CONSTRAINT audit_entries_pkey PRIMARY KEY (organization_id, audit_entry_id),
    CONSTRAINT audit_entries_details_check CHECK (jsonb_typeof(details) = 'object')
);
ALTER TABLE audit_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entries FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_entries TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON audit_entries TO tollway_auth_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON audit_entries TO tollway_auth;
GRANT SELECT, INSERT ON audit_entries TO tollway_auth_system;

-- A second lock behind the missing grants: it holds for the owner role too.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
