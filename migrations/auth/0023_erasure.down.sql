DROP TRIGGER people_stay_erased ON people;
DROP FUNCTION refuse_restored_person();
COMMENT ON COLUMN idempotency_keys.response IS NULL;
COMMENT ON COLUMN jobs.last_error IS NULL;
COMMENT ON COLUMN jobs.payload IS NULL;
COMMENT ON COLUMN organizations.billing_email IS NULL;
COMMENT ON COLUMN organizations.contact_email IS NULL;
COMMENT ON COLUMN people.password_hash IS NULL;
COMMENT ON COLUMN people.name IS NULL;
COMMENT ON COLUMN people.email IS NULL;
ALTER TABLE people DROP CONSTRAINT people_erase_time_check;
-- The older release wants an address; this one is nobody's (RFC 2606).
ALTER TABLE people NO FORCE ROW LEVEL SECURITY;
UPDATE people SET email = person_id || '@erased.invalid' WHERE email IS NULL;
ALTER TABLE people FORCE ROW LEVEL SECURITY;
ALTER TABLE people ALTER COLUMN email SET NOT NULL;
