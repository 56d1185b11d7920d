-- Service accounts that their organizations manage: who made them, when they were used, and, while a token is being
-- replaced, the old one beside the new one.

ALTER TABLE service_accounts
    ADD COLUMN creator_id uuid,
    ADD COLUMN last_use_time timestamptz,
    ADD COLUMN previous_digest bytea,
    ADD COLUMN previous_pepper_version integer,
    ADD COLUMN previous_expire_time timestamptz,
    ADD CONSTRAINT service_accounts_name_check CHECK (char_length(name) BETWEEN 1 AND 100),
    ADD CONSTRAINT service_accounts_previous_digest_key UNIQUE (previous_digest),
    ADD CONSTRAINT service_accounts_previous_check CHECK (
        (previous_digest IS NULL) = (previous_expire_time IS NULL)
        AND (previous_digest IS NULL) = (previous_pepper_version IS NULL)
    );
COMMENT ON INDEX service_accounts_previous_digest_key IS 'across tenants: the token is all that its bearer shows';

-- Whoever replaces a token has no right to read the old one's digest, so the trigger keeps it: until
-- previous_expire_time where that is set, else not at all.
CREATE FUNCTION keep_previous_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.previous_expire_time IS NULL THEN
        NEW.previous_digest := NULL;
        NEW.previous_pepper_version := NULL;
    ELSIF NEW.digest IS DISTINCT FROM OLD.digest THEN
        NEW.previous_digest := OLD.digest;
        NEW.previous_pepper_version := OLD.pepper_version;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER service_accounts_keep_previous_token
    BEFORE UPDATE OF digest, previous_expire_time ON service_accounts
    FOR EACH ROW EXECUTE FUNCTION keep_previous_token();

-- Revoked is for good, whoever asks.
CREATE FUNCTION refuse_restored_service_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a revoked service account stays revoked' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER service_accounts_stay_revoked BEFORE UPDATE OF revoke_time ON service_accounts
    FOR EACH ROW WHEN (OLD.revoke_time IS NOT NULL AND NEW.revoke_time IS DISTINCT FROM OLD.revoke_time)
    EXECUTE FUNCTION refuse_restored_service_account();

-- Accounts with a role of the operator are neither seen nor changed by the tenant role, not even by that of the
-- operator's own organization: replacing the token of one would make an operator.
CREATE POLICY operators ON service_accounts AS RESTRICTIVE TO tollway_auth
    USING (platform_role IS NULL) WITH CHECK (platform_role IS NULL);

-- Digests and platform roles stay out of reach: a digest can be written and not be read.
GRANT SELECT (creator_id, last_use_time) ON service_accounts TO tollway_auth;
GRANT INSERT (organization_id, service_account_id, name, role, digest, pepper_version, hint, creator_id, create_time,
              expire_time) ON service_accounts TO tollway_auth;
GRANT UPDATE (name, role, digest, pepper_version, hint, expire_time, revoke_time, previous_expire_time)
    ON service_accounts TO tollway_auth;
