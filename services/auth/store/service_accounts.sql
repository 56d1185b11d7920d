-- name: select_service_account
SELECT service_account_id, organization_id, role, platform_role
FROM service_accounts
WHERE digest = ANY($1::bytea[]) AND revoke_time IS NULL AND expire_time > $2
