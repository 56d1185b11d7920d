-- Organizations, the people in them, and the machines that act for them.

CREATE TABLE organizations (
    organization_id uuid NOT NULL,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'active',
    external_id text,
    contact_email text NOT NULL,
    billing_email text NOT NULL,
    currency_code text NOT NULL DEFAULT 'USD',
    time_zone text NOT NULL DEFAULT 'UTC',
    metadata jsonb NOT NULL DEFAULT '{}',
    create_time timestamptz NOT NULL,
    CONSTRAINT organizations_pkey PRIMARY KEY (organization_id),
    CONSTRAINT organizations_contact_email_key UNIQUE (contact_email),
    CONSTRAINT organizations_external_id_key UNIQUE (external_id),
    CONSTRAINT organizations_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT organizations_state_check CHECK (state IN ('active', 'suspended')),
    CONSTRAINT organizations_contact_email_check CHECK (contact_email = lower(contact_email)),
    CONSTRAINT organizations_currency_code_check CHECK (currency_code ~ '^[A-Z]{3}$'),
    CONSTRAINT organizations_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
);
COMMENT ON INDEX organizations_contact_email_key IS 'across tenants: unique in the whole installation';
COMMENT ON INDEX organizations_external_id_key IS 'across tenants: unique in the whole installation';
ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON organizations TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON organizations TO tollway_auth_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON organizations TO tollway_auth;
GRANT SELECT, INSERT, UPDATE ON organizations TO tollway_auth_system;

CREATE TABLE people (
    person_id uuid NOT NULL,
    email text NOT NULL,
    name text NOT NULL DEFAULT '',
    password_hash text,
    create_time timestamptz NOT NULL,
    CONSTRAINT people_pkey PRIMARY KEY (person_id),
    CONSTRAINT people_email_key UNIQUE (email),
    CONSTRAINT people_email_check CHECK (email = lower(email))
);
COMMENT ON TABLE people IS 'not a tenant table: a person has one e-mail address in the installation and may be a member of several organizations';
-- The tenant role has no business with password hashes, so it gets none of them.
GRANT SELECT, INSERT, UPDATE ON people TO tollway_auth_system;
GRANT SELECT (person_id, email, name, create_time) ON people TO tollway_auth;

CREATE TABLE memberships (
    organization_id uuid NOT NULL,
    person_id uuid NOT NULL,
    role text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT memberships_pkey PRIMARY KEY (organization_id, person_id),
    CONSTRAINT memberships_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations (organization_id),
    CONSTRAINT memberships_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT memberships_role_check CHECK (role IN ('owner', 'admin', 'member'))
);
CREATE INDEX memberships_person_id_idx ON memberships (person_id);
COMMENT ON INDEX memberships_person_id_idx IS 'across tenants: signing in starts from the person';
ALTER TABLE memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE memberships FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON memberships TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON memberships TO tollway_auth_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON memberships TO tollway_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON memberships TO tollway_auth_system;

CREATE TABLE platform_roles (
    person_id uuid NOT NULL,
    role text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT platform_roles_pkey PRIMARY KEY (person_id, role),
    CONSTRAINT platform_roles_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT platform_roles_role_check CHECK (role IN ('platform_admin', 'platform_support'))
);
COMMENT ON TABLE platform_roles IS 'not a tenant table: what the operator''s own people may do in every organization';
-- Operators are made by seeds under the system role; the tenant role cannot even see who they are.
GRANT SELECT, INSERT, DELETE ON platform_roles TO tollway_auth_system;

CREATE TABLE service_accounts (
    organization_id uuid NOT NULL,
    service_account_id uuid NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    platform_role text,
    digest bytea NOT NULL,
    pepper_version integer NOT NULL,
    hint text NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    revoke_time timestamptz,
    CONSTRAINT service_accounts_pkey PRIMARY KEY (organization_id, service_account_id),
    CONSTRAINT service_accounts_digest_key UNIQUE (digest),
    CONSTRAINT service_accounts_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations (organization_id),
    CONSTRAINT service_accounts_role_check CHECK (role IN ('owner', 'admin', 'member')),
    CONSTRAINT service_accounts_platform_role_check CHECK (platform_role IN ('platform_admin', 'platform_support')),
    CONSTRAINT service_accounts_digest_check CHECK (octet_length(digest) = 32)
);
COMMENT ON INDEX service_accounts_digest_key IS 'across tenants: the token is all that its bearer shows';
ALTER TABLE service_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE service_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON service_accounts TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON service_accounts TO tollway_auth_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON service_accounts TO tollway_auth;
GRANT SELECT, INSERT, UPDATE ON service_accounts TO tollway_auth_system;
