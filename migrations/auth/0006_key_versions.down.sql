DROP TRIGGER organizations_count_version ON organizations;
DROP TRIGGER api_keys_count_version ON api_keys;
DROP FUNCTION count_version();
ALTER TABLE api_keys DROP COLUMN version;
ALTER TABLE organizations DROP COLUMN version;
