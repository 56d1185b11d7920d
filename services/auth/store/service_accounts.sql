-- name: select_service_account_by_digest
-- The verifiers' question. The old token of one that is being replaced works until its time is over.
SELECT organization_id, service_account_id, name, role, platform_role, hint, creator_id, create_time, expire_time,
       revoke_time, last_use_time
FROM service_accounts
WHERE (digest = ANY($1::bytea[]) OR (previous_digest = ANY($1::bytea[]) AND previous_expire_time > $2))
  AND revoke_time IS NULL AND expire_time > $2

-- name: touch_service_account
-- Last use, at most once per 15 minutes whoever asks. A row that somebody else holds is being changed, and a look-up
-- must not wait for it.
UPDATE service_accounts SET last_use_time = $3::timestamptz
WHERE ctid = (
    SELECT ctid FROM service_accounts
    WHERE organization_id = $1 AND service_account_id = $2
      AND (last_use_time IS NULL OR last_use_time < $3::timestamptz - interval '15 minutes')
    FOR UPDATE SKIP LOCKED
)

-- name: lock_service_accounts
-- The row of the organization would do, but the tenant role may not lock it.
SELECT pg_advisory_xact_lock(hashtextextended('auth.service_accounts ' || $1::uuid::text, 0))

-- name: select_nth_usable_service_account
-- One that still works, behind so many others.
SELECT true FROM service_accounts
WHERE organization_id = $1 AND revoke_time IS NULL AND expire_time > $2
OFFSET $3 - 1 LIMIT 1

-- name: insert_service_account
INSERT INTO service_accounts (organization_id, service_account_id, name, role, digest, pepper_version, hint, creator_id,
                              create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: set_platform_role
-- A statement of its own, because the tenant role may not write this column.
UPDATE service_accounts SET platform_role = $3 WHERE organization_id = $1 AND service_account_id = $2

-- name: select_service_account
SELECT organization_id, service_account_id, name, role, hint, creator_id, create_time, expire_time, revoke_time,
       last_use_time
FROM service_accounts
WHERE organization_id = $1 AND service_account_id = $2

-- name: select_service_account_for_update
-- Locked, so that two who change it at once do so one after the other.
SELECT organization_id, service_account_id, name, role, hint, creator_id, create_time, expire_time, revoke_time,
       last_use_time
FROM service_accounts
WHERE organization_id = $1 AND service_account_id = $2
FOR UPDATE

-- name: select_service_accounts
-- Ids are UUIDv7, so their order is the order of creation and one column carries the page.
SELECT organization_id, service_account_id, name, role, hint, creator_id, create_time, expire_time, revoke_time,
       last_use_time
FROM service_accounts
WHERE organization_id = $1 AND ($2::uuid IS NULL OR service_account_id < $2)
ORDER BY organization_id DESC, service_account_id DESC
LIMIT $3

-- name: select_platform_roles_of_service_accounts
-- For the operator's people alone: the tenant role neither reads the column nor sees such an account.
SELECT service_account_id, platform_role FROM service_accounts
WHERE organization_id = $1 AND service_account_id = ANY($2::uuid[]) AND platform_role IS NOT NULL

-- name: update_service_account
UPDATE service_accounts SET name = $3, role = $4, expire_time = $5
WHERE organization_id = $1 AND service_account_id = $2

-- name: replace_service_account_token
-- A trigger keeps the old digest where the overlap has an end.
UPDATE service_accounts SET digest = $3, pepper_version = $4, hint = $5, previous_expire_time = $6
WHERE organization_id = $1 AND service_account_id = $2

-- name: revoke_service_account
UPDATE service_accounts SET revoke_time = $3 WHERE organization_id = $1 AND service_account_id = $2
