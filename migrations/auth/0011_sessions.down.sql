DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP FUNCTION refuse_restored_session();
DROP TRIGGER memberships_count_update ON memberships;
DROP TRIGGER memberships_count_insert ON memberships;
DROP FUNCTION count_membership_version();
ALTER TABLE memberships DROP COLUMN version;
DROP SEQUENCE membership_versions;
