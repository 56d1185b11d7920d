-- What becomes of a key: it is changed, replaced by another one, or came from elsewhere.

ALTER TABLE api_keys
    ADD COLUMN replaced_by_id uuid,
    ADD COLUMN key_prefix text NOT NULL DEFAULT '',
    ADD CONSTRAINT api_keys_key_prefix_check CHECK (key_prefix = '' OR key_prefix ~ '^[!-~]{4,20}$');

GRANT SELECT (replaced_by_id, key_prefix), INSERT (key_prefix),
      UPDATE (name, scopes, allowed_ips, external_subject, expire_time, replaced_by_id) ON api_keys TO tollway_auth;

-- Ended is for good, whoever asks: who could move the expiry of a revoked or replaced key would bring it back.
CREATE FUNCTION refuse_changed_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an API key that has ended or was replaced does not live longer' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER api_keys_stay_ended BEFORE UPDATE OF expire_time, replaced_by_id ON api_keys
    FOR EACH ROW WHEN (
        OLD.replaced_by_id IS NOT NULL AND NEW.replaced_by_id IS DISTINCT FROM OLD.replaced_by_id
        OR (OLD.revoke_time IS NOT NULL OR OLD.replaced_by_id IS NOT NULL)
           AND coalesce(NEW.expire_time, 'infinity') > coalesce(OLD.expire_time, 'infinity')
    )
    EXECUTE FUNCTION refuse_changed_end();
