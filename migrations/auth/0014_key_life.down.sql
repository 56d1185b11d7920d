DROP TRIGGER api_keys_stay_ended ON api_keys;
DROP FUNCTION refuse_changed_end();
REVOKE UPDATE (name, scopes, allowed_ips, external_subject, expire_time) ON api_keys FROM tollway_auth;
ALTER TABLE api_keys DROP COLUMN key_prefix, DROP COLUMN replaced_by_id;
