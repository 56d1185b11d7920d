DROP TABLE recovery_codes;
DROP TABLE second_factors;
DROP TABLE email_changes;
DROP TABLE password_resets;
DROP TABLE registrations;
ALTER TABLE organizations NO FORCE ROW LEVEL SECURITY;
UPDATE organizations SET contact_email = 'none+' || organization_id || '@invalid' WHERE contact_email IS NULL;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
ALTER TABLE organizations ALTER COLUMN contact_email SET NOT NULL;
ALTER TABLE people
    DROP COLUMN credential_version,
    DROP COLUMN erase_time;
