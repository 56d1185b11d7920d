-- A gateway of the operator's that is no process of ours (Envoy) asks about keys with a service account of its own. The
-- role is a machine's: no person has it.

ALTER TABLE service_accounts DROP CONSTRAINT service_accounts_platform_role_check;
ALTER TABLE service_accounts ADD CONSTRAINT service_accounts_platform_role_check
    CHECK (platform_role IN ('platform_admin', 'platform_support', 'platform_gateway'));
