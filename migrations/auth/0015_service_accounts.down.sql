REVOKE INSERT (organization_id, service_account_id, name, role, digest, pepper_version, hint, creator_id, create_time,
               expire_time) ON service_accounts FROM tollway_auth;
REVOKE UPDATE (name, role, digest, pepper_version, hint, expire_time, revoke_time, previous_expire_time)
    ON service_accounts FROM tollway_auth;
DROP POLICY operators ON service_accounts;
DROP TRIGGER service_accounts_stay_revoked ON service_accounts;
DROP TRIGGER service_accounts_keep_previous_token ON service_accounts;
DROP FUNCTION refuse_restored_service_account();
DROP FUNCTION keep_previous_token();
ALTER TABLE service_accounts
    DROP CONSTRAINT service_accounts_name_check,
    DROP COLUMN previous_expire_time,
    DROP COLUMN previous_pepper_version,
    DROP COLUMN previous_digest,
    DROP COLUMN last_use_time,
    DROP COLUMN creator_id;
