-- What verifiers of tokens have to know beyond the tokens, for as long as a token from before can be valid: ended
-- sessions, changed and ended memberships, changed organizations and service accounts.

CREATE TABLE principal_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY,
    -- One notice per transaction names all its changes, however many they are.
    transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    -- Not the transaction's beginning: a token may be signed between that and the change.
    change_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    subject_id uuid NOT NULL,
    -- With a membership: where, and from which version on it is good.
    organization_id uuid,
    version bigint,
    CONSTRAINT principal_changes_pkey PRIMARY KEY (change_id),
    CONSTRAINT principal_changes_kind_check
        CHECK (kind IN ('session', 'membership', 'organization', 'service_account')),
    CONSTRAINT principal_changes_membership_check CHECK ((kind = 'membership') = (organization_id IS NOT NULL)
        AND (organization_id IS NULL) = (version IS NULL))
);
COMMENT ON TABLE principal_changes IS 'not a tenant table: what every verifier of tokens is told, across tenants; written by triggers alone';
CREATE INDEX principal_changes_transaction_idx ON principal_changes (transaction_id);
CREATE INDEX principal_changes_time_idx ON principal_changes (change_time);
GRANT SELECT, DELETE ON principal_changes TO tollway_auth_system;

-- The triggers, not the service, note and tell: a change made by hand in psql reaches the verifiers as well. They write
-- in the owner's name, so that no role of the service can write down a change that nobody made.
CREATE FUNCTION tell_principal_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('auth_principal_changes', NEW.transaction_id::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER principal_changes_tell AFTER INSERT ON principal_changes
    FOR EACH ROW EXECUTE FUNCTION tell_principal_change();

CREATE FUNCTION note_ended_session() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = auth, pg_temp AS $$
BEGIN
    INSERT INTO principal_changes (kind, subject_id) VALUES ('session', OLD.session_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER sessions_note_end AFTER UPDATE OF revoke_time ON sessions
    FOR EACH ROW WHEN (OLD.revoke_time IS NULL AND NEW.revoke_time IS NOT NULL) EXECUTE FUNCTION note_ended_session();
-- A session is removed once it has ended; one that is removed before that has ended by it.
CREATE TRIGGER sessions_note_removal AFTER DELETE ON sessions
    FOR EACH ROW WHEN (OLD.revoke_time IS NULL AND OLD.expire_time > now()) EXECUTE FUNCTION note_ended_session();

CREATE FUNCTION note_changed_membership() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = auth, pg_temp AS $$
BEGIN
    INSERT INTO principal_changes (kind, subject_id, organization_id, version)
    -- Versions come from one sequence, so whoever joins again gets a higher one than this.
    VALUES ('membership', OLD.person_id, OLD.organization_id,
            CASE WHEN TG_OP = 'DELETE' THEN OLD.version + 1 ELSE NEW.version END);
    RETURN NULL;
END
$$;
CREATE TRIGGER memberships_note_change AFTER UPDATE ON memberships
    FOR EACH ROW WHEN (OLD.version IS DISTINCT FROM NEW.version) EXECUTE FUNCTION note_changed_membership();
CREATE TRIGGER memberships_note_removal AFTER DELETE ON memberships
    FOR EACH ROW EXECUTE FUNCTION note_changed_membership();

-- Tokens carry the operator's roles too. Whoever gets or loses one has another membership everywhere.
CREATE FUNCTION change_memberships_of_operator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE memberships SET version = version + 1 WHERE person_id = coalesce(NEW.person_id, OLD.person_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER platform_roles_change_memberships AFTER INSERT OR UPDATE OR DELETE ON platform_roles
    FOR EACH ROW EXECUTE FUNCTION change_memberships_of_operator();

CREATE FUNCTION note_changed_organization() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = auth, pg_temp AS $$
BEGIN
    INSERT INTO principal_changes (kind, subject_id) VALUES ('organization', NEW.organization_id);
    RETURN NULL;
END
$$;
-- The version counts whatever decides how an organization is served.
CREATE TRIGGER organizations_note_change AFTER UPDATE ON organizations
    FOR EACH ROW WHEN (OLD.version IS DISTINCT FROM NEW.version) EXECUTE FUNCTION note_changed_organization();

CREATE FUNCTION note_changed_service_account() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = auth, pg_temp AS $$
BEGIN
    INSERT INTO principal_changes (kind, subject_id) VALUES ('service_account', OLD.service_account_id);
    RETURN NULL;
END
$$;
-- Whatever columns there will be; traffic alone changes nothing.
CREATE TRIGGER service_accounts_note_change AFTER UPDATE ON service_accounts
    FOR EACH ROW WHEN (to_jsonb(OLD) - 'last_use_time' IS DISTINCT FROM to_jsonb(NEW) - 'last_use_time')
    EXECUTE FUNCTION note_changed_service_account();
CREATE TRIGGER service_accounts_note_removal AFTER DELETE ON service_accounts
    FOR EACH ROW EXECUTE FUNCTION note_changed_service_account();
