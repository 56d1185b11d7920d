-- Erased people keep their id and nothing else. Where something about people is stored is written on the columns;
-- tests/integration/catalog holds that every column is either marked or known to be harmless.

ALTER TABLE people ALTER COLUMN email DROP NOT NULL;
ALTER TABLE people ADD CONSTRAINT people_erase_time_check
    CHECK ((email IS NULL) = (erase_time IS NOT NULL) AND (erase_time IS NULL OR (name = '' AND password_hash IS NULL)));
COMMENT ON COLUMN people.email IS 'personal: what the account is known by; none once it is erased';
COMMENT ON COLUMN people.name IS 'personal: what the person is called';
COMMENT ON COLUMN people.password_hash IS 'personal: what the password is compared with';
COMMENT ON COLUMN organizations.contact_email IS 'personal: may be a member''s own address';
COMMENT ON COLUMN organizations.billing_email IS 'personal: may be a member''s own address';
COMMENT ON COLUMN jobs.payload IS 'personal: who an e-mail goes to';
COMMENT ON COLUMN jobs.last_error IS 'personal: may repeat the payload';
COMMENT ON COLUMN idempotency_keys.response IS 'personal: may show who asked; sealed (mesh/secretbox)';

-- Erased is for good, whoever asks.
CREATE FUNCTION refuse_restored_person() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an erased person stays erased' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER people_stay_erased BEFORE UPDATE ON people
    FOR EACH ROW WHEN (OLD.erase_time IS NOT NULL) EXECUTE FUNCTION refuse_restored_person();
