-- The keys that session tokens are signed with. Every replica reads them here, so that a new one needs no restart.

CREATE TABLE signing_keys (
    key_id text NOT NULL,
    public_key bytea NOT NULL,
    data_key_version integer NOT NULL,
    seed bytea NOT NULL,
    create_time timestamptz NOT NULL,
    active_time timestamptz NOT NULL,
    retire_time timestamptz,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (key_id),
    CONSTRAINT signing_keys_key_id_check CHECK (key_id ~ '^[0-9a-f]{16}$'),
    CONSTRAINT signing_keys_public_key_check CHECK (octet_length(public_key) = 32),
    CONSTRAINT signing_keys_retire_time_check CHECK (retire_time > active_time)
);
COMMENT ON TABLE signing_keys IS 'not a tenant table: the installation has one signer; the tenant role has no business with it';
COMMENT ON COLUMN signing_keys.seed IS 'sealed (mesh/secretbox)';
COMMENT ON COLUMN signing_keys.active_time IS 'from when on tokens are signed with it; it is published before';
COMMENT ON COLUMN signing_keys.retire_time IS 'when the last token that was signed with it has ended';
-- One key has no successor: two who rotate at once cannot both add one.
CREATE UNIQUE INDEX signing_keys_newest_key ON signing_keys ((retire_time IS NULL)) WHERE retire_time IS NULL;
GRANT SELECT, INSERT, DELETE ON signing_keys TO tollway_auth_system;
GRANT UPDATE (data_key_version, seed, retire_time) ON signing_keys TO tollway_auth_system;

CREATE FUNCTION notify_signing_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('auth_signing_keys', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER signing_keys_notify AFTER INSERT OR UPDATE OR DELETE ON signing_keys
    FOR EACH STATEMENT EXECUTE FUNCTION notify_signing_keys();
