DROP TRIGGER organizations_notify_state ON organizations;
DROP TABLE api_keys;
DROP FUNCTION notify_organization_change();
DROP FUNCTION notify_key_change();
