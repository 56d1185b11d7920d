-- Invitations to join an organization.

CREATE TABLE invitations (
    organization_id uuid NOT NULL,
    invitation_id uuid NOT NULL,
    email text NOT NULL,
    role text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    inviter_id uuid NOT NULL,
    digest bytea NOT NULL,
    send_count integer NOT NULL DEFAULT 1,
    send_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    answer_time timestamptz,
    CONSTRAINT invitations_pkey PRIMARY KEY (organization_id, invitation_id),
    CONSTRAINT invitations_digest_key UNIQUE (digest),
    CONSTRAINT invitations_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations (organization_id),
    CONSTRAINT invitations_email_check CHECK (email = lower(email)),
    CONSTRAINT invitations_role_check CHECK (role IN ('owner', 'admin', 'member')),
    CONSTRAINT invitations_state_check CHECK (state IN ('pending', 'accepted', 'declined', 'cancelled', 'expired')),
    CONSTRAINT invitations_answer_time_check CHECK ((state = 'pending') = (answer_time IS NULL)),
    CONSTRAINT invitations_digest_check CHECK (octet_length(digest) = 32)
);
COMMENT ON COLUMN invitations.email IS 'personal: who is invited';
COMMENT ON COLUMN invitations.state IS 'one that is pending beyond its expire_time has expired as well';
COMMENT ON COLUMN invitations.digest IS 'of the token in the last e-mail; kept behind the answer, so that a repeated answer is known as such';
COMMENT ON INDEX invitations_digest_key IS 'across tenants: the token is all that its bearer shows';
-- One address has one invitation at a time, however parallel.
CREATE UNIQUE INDEX invitations_pending_key ON invitations (organization_id, email) WHERE state = 'pending';
-- How often an address was written to lately.
CREATE INDEX invitations_email_idx ON invitations (organization_id, email, create_time);
CREATE INDEX invitations_inviter_idx ON invitations (organization_id, inviter_id) WHERE state = 'pending';
CREATE INDEX invitations_mine_idx ON invitations (email, invitation_id);
COMMENT ON INDEX invitations_mine_idx IS 'across tenants: a person is shown what waits for their address';
CREATE INDEX invitations_expire_time_idx ON invitations (expire_time);
COMMENT ON INDEX invitations_expire_time_idx IS 'across tenants: the daily clean-up goes by age';

ALTER TABLE invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE invitations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON invitations TO tollway_auth
    USING (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid)
    WITH CHECK (organization_id = nullif(current_setting('tollway.organization_id', true), '')::uuid);
CREATE POLICY system ON invitations TO tollway_auth_system USING (true) WITH CHECK (true);
-- An invitation makes members, so the tenant role, which makes none, only reads it, and no digest.
GRANT SELECT (organization_id, invitation_id, email, role, state, inviter_id, create_time, expire_time, answer_time)
    ON invitations TO tollway_auth;
GRANT SELECT, INSERT, DELETE ON invitations TO tollway_auth_system;
GRANT UPDATE (email, state, digest, send_count, send_time, expire_time, answer_time) ON invitations
    TO tollway_auth_system;

-- What was answered stays answered, whoever asks.
CREATE FUNCTION refuse_reopened_invitation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an invitation that was answered stays so' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER invitations_stay_answered BEFORE UPDATE OF state, digest, answer_time ON invitations
    FOR EACH ROW WHEN (OLD.state <> 'pending') EXECUTE FUNCTION refuse_reopened_invitation();
