-- People register themselves, prove that an address is theirs, set new passwords, and may have a second factor.

ALTER TABLE people
    ADD COLUMN credential_version integer NOT NULL DEFAULT 1,
    ADD COLUMN erase_time timestamptz;
COMMENT ON COLUMN people.credential_version IS 'counts changes of password and address: what was asked for or proved before one is void after it';
COMMENT ON COLUMN people.erase_time IS 'from then on nobody signs in as this person';
GRANT SELECT (erase_time) ON people TO tollway_auth;

-- Somebody else may have named the address of who registers as their own contact. They do not keep anybody from
-- registering by that: the new organization has no contact then, and its owners are written to.
ALTER TABLE organizations ALTER COLUMN contact_email DROP NOT NULL;

CREATE TABLE registrations (
    registration_id uuid NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    name text NOT NULL,
    organization_name text NOT NULL,
    currency_code text NOT NULL,
    time_zone text NOT NULL,
    digest bytea,
    create_time timestamptz NOT NULL,
    mail_time timestamptz,
    expire_time timestamptz,
    CONSTRAINT registrations_pkey PRIMARY KEY (registration_id),
    CONSTRAINT registrations_digest_key UNIQUE (digest),
    CONSTRAINT registrations_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT registrations_email_check CHECK (email = lower(email)),
    CONSTRAINT registrations_expire_time_check CHECK ((digest IS NULL) = (expire_time IS NULL)),
    CONSTRAINT registrations_mail_time_check CHECK (digest IS NULL OR mail_time IS NOT NULL)
);
COMMENT ON TABLE registrations IS 'not a tenant table: nobody has proved anything yet, so there is neither a person nor an organization';
COMMENT ON COLUMN registrations.email IS 'personal: the address that is to be proved';
COMMENT ON COLUMN registrations.password_hash IS 'personal: the password to be';
COMMENT ON COLUMN registrations.name IS 'personal: the name to be';
COMMENT ON COLUMN registrations.organization_name IS 'personal: what the organization is to be called';
COMMENT ON COLUMN registrations.digest IS 'of the token in the e-mail; none before it was written, and none where the address had an account already';
COMMENT ON COLUMN registrations.mail_time IS 'when the e-mail was written';
CREATE INDEX registrations_email_idx ON registrations (email, create_time);
CREATE INDEX registrations_create_time_idx ON registrations (create_time);
GRANT SELECT, INSERT, DELETE ON registrations TO tollway_auth_system;
GRANT UPDATE (digest, mail_time, expire_time) ON registrations TO tollway_auth_system;

CREATE TABLE password_resets (
    password_reset_id uuid NOT NULL,
    person_id uuid NOT NULL,
    digest bytea NOT NULL,
    credential_version integer NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    CONSTRAINT password_resets_pkey PRIMARY KEY (password_reset_id),
    CONSTRAINT password_resets_digest_key UNIQUE (digest),
    CONSTRAINT password_resets_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT password_resets_digest_check CHECK (octet_length(digest) = 32)
);
COMMENT ON TABLE password_resets IS 'not a tenant table: a password is its person''s, whatever organizations they are in';
COMMENT ON COLUMN password_resets.credential_version IS 'of the person when it was asked for; void once theirs is another';
CREATE INDEX password_resets_person_idx ON password_resets (person_id, create_time);
CREATE INDEX password_resets_expire_time_idx ON password_resets (expire_time);
-- UPDATE, because whoever redeems or removes a row locks it.
GRANT SELECT, INSERT, UPDATE, DELETE ON password_resets TO tollway_auth_system;

CREATE TABLE email_changes (
    email_change_id uuid NOT NULL,
    person_id uuid NOT NULL,
    new_email text NOT NULL,
    digest bytea NOT NULL,
    credential_version integer NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    CONSTRAINT email_changes_pkey PRIMARY KEY (email_change_id),
    CONSTRAINT email_changes_digest_key UNIQUE (digest),
    CONSTRAINT email_changes_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT email_changes_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT email_changes_new_email_check CHECK (new_email = lower(new_email))
);
COMMENT ON TABLE email_changes IS 'not a tenant table: an address is its person''s, whatever organizations they are in';
COMMENT ON COLUMN email_changes.new_email IS 'personal: the address to be';
COMMENT ON COLUMN email_changes.credential_version IS 'of the person when it was asked for; void once theirs is another';
CREATE INDEX email_changes_person_idx ON email_changes (person_id, create_time);
CREATE INDEX email_changes_expire_time_idx ON email_changes (expire_time);
GRANT SELECT, INSERT, UPDATE, DELETE ON email_changes TO tollway_auth_system;

CREATE TABLE second_factors (
    person_id uuid NOT NULL,
    data_key_version integer NOT NULL,
    secret bytea NOT NULL,
    newest_step bigint,
    failure_level double precision NOT NULL DEFAULT 0,
    failure_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    confirm_time timestamptz,
    CONSTRAINT second_factors_pkey PRIMARY KEY (person_id),
    CONSTRAINT second_factors_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT second_factors_failure_level_check CHECK (failure_level >= 0)
);
COMMENT ON TABLE second_factors IS 'not a tenant table: a second factor is its person''s, whatever organizations they are in';
COMMENT ON COLUMN second_factors.secret IS 'personal: sealed (mesh/secretbox)';
COMMENT ON COLUMN second_factors.newest_step IS 'the step (RFC 6238) of the newest code that was accepted; older ones and this one are refused';
COMMENT ON COLUMN second_factors.failure_level IS 'wrong codes that are not forgotten yet, as it was at failure_time';
COMMENT ON COLUMN second_factors.confirm_time IS 'when the first code proved that the person has the secret; before that it is not asked for';
GRANT SELECT, INSERT, UPDATE, DELETE ON second_factors TO tollway_auth_system;

CREATE TABLE recovery_codes (
    person_id uuid NOT NULL,
    digest bytea NOT NULL,
    use_time timestamptz,
    create_time timestamptz NOT NULL,
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (person_id, digest),
    CONSTRAINT recovery_codes_person_id_fkey FOREIGN KEY (person_id) REFERENCES second_factors (person_id) ON DELETE CASCADE,
    CONSTRAINT recovery_codes_digest_check CHECK (octet_length(digest) = 32)
);
COMMENT ON TABLE recovery_codes IS 'not a tenant table: a second factor is its person''s, whatever organizations they are in';
GRANT SELECT, INSERT, UPDATE, DELETE ON recovery_codes TO tollway_auth_system;
