-- name: insert_organization
-- Whatever was changed since the first start stays changed.
INSERT INTO organizations (organization_id, name, external_id, contact_email, billing_email, create_time)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING

-- name: select_people
SELECT person_id FROM people WHERE person_id = ANY($1::uuid[])

-- name: select_service_account_digest
SELECT digest FROM service_accounts WHERE service_account_id = $1

-- name: upsert_person
INSERT INTO people (person_id, email, name, password_hash, create_time)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (person_id) DO UPDATE SET password_hash = excluded.password_hash

-- name: insert_membership
INSERT INTO memberships (organization_id, person_id, role, create_time)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING

-- name: insert_platform_role
INSERT INTO platform_roles (person_id, role, create_time)
VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING

-- name: upsert_api_key
-- A digest differs when an external database outlived its installation's secrets: the key of the new ones must work.
-- A key that somebody revoked stays revoked.
INSERT INTO api_keys (organization_id, api_key_id, digest, pepper_version, name, hint, mode, creator_id, create_time)
VALUES ($1, $2, $3, $4, 'demo', $5, 'live', $6, $7)
ON CONFLICT (organization_id, api_key_id) DO UPDATE
    SET digest = excluded.digest, pepper_version = excluded.pepper_version, hint = excluded.hint
    WHERE api_keys.digest <> excluded.digest

-- name: upsert_service_account
-- Every start moves its expiry on, or a year-old installation would lock its tools out. One that somebody revoked stays
-- revoked; one whose token somebody replaced has its own again.
INSERT INTO service_accounts (organization_id, service_account_id, name, role, platform_role, digest, pepper_version,
                              hint, create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (organization_id, service_account_id) DO UPDATE
    SET digest = excluded.digest, pepper_version = excluded.pepper_version, hint = excluded.hint,
        expire_time = excluded.expire_time, previous_expire_time = NULL
    WHERE service_accounts.revoke_time IS NULL
