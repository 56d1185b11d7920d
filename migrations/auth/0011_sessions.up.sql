-- Where people are signed in, and the refresh tokens that keep them so. What one sign-in led to is one family: its session.

-- A version per membership, so that a token tells which state of it the token was made from. One sequence serves all of
-- them: whoever leaves and joins again gets a higher version than before, too.
CREATE SEQUENCE membership_versions AS bigint;
ALTER TABLE memberships ADD COLUMN version bigint NOT NULL DEFAULT nextval('membership_versions');
ALTER TABLE memberships ALTER COLUMN version SET DEFAULT 0;
GRANT USAGE ON SEQUENCE membership_versions TO tollway_auth_system;
-- The trigger, not the service, counts: a change made by hand in psql counts as well.
CREATE FUNCTION count_membership_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := nextval('auth.membership_versions');
    RETURN NEW;
END
$$;
CREATE TRIGGER memberships_count_insert BEFORE INSERT ON memberships
    FOR EACH ROW EXECUTE FUNCTION count_membership_version();
CREATE TRIGGER memberships_count_update BEFORE UPDATE ON memberships
    FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role OR OLD.version IS DISTINCT FROM NEW.version)
    EXECUTE FUNCTION count_membership_version();

CREATE TABLE sessions (
    session_id uuid NOT NULL,
    person_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    last_use_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    revoke_time timestamptz,
    revoke_reason text,
    address text NOT NULL DEFAULT '',
    user_agent text NOT NULL DEFAULT '',
    CONSTRAINT sessions_pkey PRIMARY KEY (session_id),
    CONSTRAINT sessions_person_id_fkey FOREIGN KEY (person_id) REFERENCES people (person_id),
    CONSTRAINT sessions_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES organizations (organization_id),
    CONSTRAINT sessions_expire_time_check CHECK (create_time < expire_time AND expire_time <= end_time),
    CONSTRAINT sessions_revoke_check CHECK ((revoke_time IS NULL) = (revoke_reason IS NULL)),
    CONSTRAINT sessions_revoke_reason_check CHECK (char_length(revoke_reason) BETWEEN 1 AND 50),
    CONSTRAINT sessions_user_agent_check CHECK (char_length(user_agent) <= 200)
);
COMMENT ON TABLE sessions IS 'not a tenant table: a session is its person''s, who moves it between their organizations; the tenant role has no business with it';
COMMENT ON COLUMN sessions.expire_time IS 'when it ends unless its tokens are renewed';
COMMENT ON COLUMN sessions.end_time IS 'when it ends however often they are';
COMMENT ON COLUMN sessions.address IS 'personal: where the person signed in from';
COMMENT ON COLUMN sessions.user_agent IS 'personal: what they signed in with';
CREATE INDEX sessions_person_idx ON sessions (person_id, session_id);
CREATE INDEX sessions_organization_idx ON sessions (organization_id, person_id) WHERE revoke_time IS NULL;
CREATE INDEX sessions_expire_time_idx ON sessions (expire_time);
-- Verifiers are told of sessions that ended within the life of an access token.
CREATE INDEX sessions_revoke_time_idx ON sessions (revoke_time) WHERE revoke_time IS NOT NULL;
GRANT SELECT, INSERT, DELETE ON sessions TO tollway_auth_system;
-- Address and user agent for the sake of those who are erased; the row is needed as long as its tokens could be valid.
GRANT UPDATE (organization_id, last_use_time, expire_time, revoke_time, revoke_reason, address, user_agent) ON sessions
    TO tollway_auth_system;

CREATE TABLE refresh_tokens (
    digest bytea NOT NULL,
    session_id uuid NOT NULL,
    pepper_version integer NOT NULL,
    create_time timestamptz NOT NULL,
    use_time timestamptz,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (digest),
    CONSTRAINT refresh_tokens_session_id_fkey FOREIGN KEY (session_id) REFERENCES sessions (session_id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_digest_check CHECK (octet_length(digest) = 32)
);
COMMENT ON TABLE refresh_tokens IS 'not a tenant table: a token is its session''s, and that is its person''s';
COMMENT ON COLUMN refresh_tokens.use_time IS 'when the session was renewed with it; whoever shows it again ends the session';
-- A session has one token that is good, however many clients renew it at once.
CREATE UNIQUE INDEX refresh_tokens_unused_key ON refresh_tokens (session_id) WHERE use_time IS NULL;
CREATE INDEX refresh_tokens_session_idx ON refresh_tokens (session_id, create_time);
CREATE INDEX refresh_tokens_use_time_idx ON refresh_tokens (use_time) WHERE use_time IS NOT NULL;
GRANT SELECT, INSERT, DELETE ON refresh_tokens TO tollway_auth_system;
GRANT UPDATE (use_time) ON refresh_tokens TO tollway_auth_system;

-- What has ended stays so, whoever asks: a session that was revoked, a token that was used.
CREATE FUNCTION refuse_restored_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a session that has ended stays so' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER sessions_stay_revoked BEFORE UPDATE OF revoke_time, revoke_reason ON sessions
    FOR EACH ROW WHEN (OLD.revoke_time IS NOT NULL) EXECUTE FUNCTION refuse_restored_session();
CREATE TRIGGER refresh_tokens_stay_used BEFORE UPDATE ON refresh_tokens
    FOR EACH ROW WHEN (OLD.use_time IS NOT NULL) EXECUTE FUNCTION refuse_restored_session();
