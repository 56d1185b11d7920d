-- The code before knows no gateways: their tokens end. The owner sees no rows while row security is forced.
ALTER TABLE service_accounts NO FORCE ROW LEVEL SECURITY;
UPDATE service_accounts SET revoke_time = coalesce(revoke_time, now()), platform_role = NULL
WHERE platform_role = 'platform_gateway';
ALTER TABLE service_accounts FORCE ROW LEVEL SECURITY;
ALTER TABLE service_accounts DROP CONSTRAINT service_accounts_platform_role_check;
ALTER TABLE service_accounts ADD CONSTRAINT service_accounts_platform_role_check
    CHECK (platform_role IN ('platform_admin', 'platform_support'));
