-- name: select_grants_by_digest
-- The edge's question: one index look-up per digest, all of them in one round trip.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, k.key_prefix, o.effective_state AS organization_state, o.plan_id, o.restricted,
       k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.digest = ANY($1::bytea[])

-- name: select_grants_by_key
-- Keys that a notice named.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, k.key_prefix, o.effective_state AS organization_state, o.plan_id, o.restricted,
       k.version + o.version AS version
FROM unnest($1::uuid[], $2::uuid[]) AS changed (organization_id, api_key_id)
JOIN api_keys AS k ON k.organization_id = changed.organization_id AND k.api_key_id = changed.api_key_id
JOIN organizations AS o ON o.organization_id = k.organization_id

-- name: select_grants_by_organization
-- An organization was suspended or restored: the state of all its keys is another one now.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, k.key_prefix, o.effective_state AS organization_state, o.plan_id, o.restricted,
       k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.organization_id = ANY($1::uuid[]) AND k.revoke_time IS NULL

-- name: select_snapshot
-- Keys that can serve a request, the busiest first. A key that is left out is asked for when it is shown.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, k.key_prefix, o.effective_state AS organization_state, o.plan_id, o.restricted,
       k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.revoke_time IS NULL AND (k.expire_time IS NULL OR k.expire_time > $2)
ORDER BY k.last_use_time DESC NULLS LAST, k.api_key_id DESC
LIMIT $1

-- name: touch_keys
-- Last use as edges report it; what is stored is raised when it is more than a step behind, so a key that is in use costs
-- one write per step however many edges serve it. Rows are locked in id order, so reports cannot wait crosswise.
UPDATE api_keys AS k SET last_use_time = stale.use_time
FROM (
    SELECT a.organization_id, a.api_key_id, used.use_time
    FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS used (organization_id, api_key_id, use_time)
    JOIN api_keys AS a ON a.organization_id = used.organization_id AND a.api_key_id = used.api_key_id
    WHERE (a.last_use_time IS NULL OR a.last_use_time < used.use_time - $4::interval)
      AND (a.revoke_time IS NULL OR a.revoke_time >= used.use_time)
      AND (a.expire_time IS NULL OR a.expire_time >= used.use_time)
    ORDER BY a.organization_id, a.api_key_id
    FOR UPDATE OF a
) AS stale
WHERE k.organization_id = stale.organization_id AND k.api_key_id = stale.api_key_id

-- name: select_prefixes
-- What imported keys begin with, over all tenants: one step in the index per beginning, however many keys there are.
WITH RECURSIVE step (key_prefix) AS (
    (SELECT key_prefix FROM api_keys WHERE key_prefix <> '' AND revoke_time IS NULL ORDER BY key_prefix LIMIT 1)
    UNION ALL
    SELECT (
        SELECT k.key_prefix FROM api_keys AS k
        WHERE k.key_prefix <> '' AND k.revoke_time IS NULL AND k.key_prefix > step.key_prefix
        ORDER BY k.key_prefix LIMIT 1
    )
    FROM step
    WHERE step.key_prefix IS NOT NULL
)
SELECT key_prefix FROM step WHERE key_prefix IS NOT NULL LIMIT $1

-- name: select_prefixes_of_organization
SELECT DISTINCT key_prefix FROM api_keys WHERE organization_id = $1 AND key_prefix <> '' AND revoke_time IS NULL

-- name: insert_api_keys
-- All in one statement. A digest that is there already, whoever's it is, leaves its row out, and the caller sees it by
-- what is missing.
INSERT INTO api_keys (organization_id, api_key_id, digest, pepper_version, name, hint, mode, scopes, allowed_ips,
                      external_subject, creator_id, create_time, expire_time, key_prefix)
SELECT $1, k.api_key_id, decode(k.digest, 'hex'), $2, k.name, k.hint, k.mode, k.scopes, k.allowed_ips,
       k.external_subject, $3, $4, k.expire_time, k.key_prefix
FROM jsonb_to_recordset($5::text::jsonb) AS k (
    api_key_id uuid, digest text, name text, hint text, mode text, scopes text[], allowed_ips text[],
    external_subject text, expire_time timestamptz, key_prefix text
)
ORDER BY k.digest
ON CONFLICT DO NOTHING
RETURNING api_key_id

-- name: insert_api_key
INSERT INTO api_keys (organization_id, api_key_id, digest, pepper_version, name, hint, mode, scopes, allowed_ips,
                      external_subject, creator_id, create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)

-- name: lock_api_keys
-- The row of the organization would do, but the tenant role may not lock it.
SELECT pg_advisory_xact_lock(hashtextextended('auth.api_keys ' || $1::uuid::text, 0))

-- name: select_nth_latest_creation
-- With a row, at least so many keys are younger than the instant; without one, fewer are.
SELECT create_time FROM api_keys
WHERE organization_id = $1 AND creator_id = $2 AND create_time > $3
ORDER BY create_time DESC
OFFSET $4 - 1 LIMIT 1

-- name: select_nth_usable_key
-- A key that still serves, behind so many others.
SELECT true FROM api_keys
WHERE organization_id = $1 AND revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $2)
OFFSET $3 - 1 LIMIT 1

-- name: select_api_key_for_update
-- Locked, so that two who revoke at once agree on the time.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND api_key_id = $2
FOR UPDATE

-- name: update_api_key
UPDATE api_keys SET name = $3, scopes = $4, allowed_ips = $5, external_subject = $6, expire_time = $7
WHERE organization_id = $1 AND api_key_id = $2

-- name: replace_api_key
UPDATE api_keys SET replaced_by_id = $3, expire_time = $4, revoke_time = $5
WHERE organization_id = $1 AND api_key_id = $2

-- name: select_end_of_service_account
SELECT expire_time FROM service_accounts WHERE service_account_id = $1

-- name: revoke_api_key
UPDATE api_keys SET revoke_time = $3 WHERE organization_id = $1 AND api_key_id = $2

-- name: select_api_keys
-- Ids are UUIDv7, so their order is the order of creation and one column carries the page.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND ($2::uuid IS NULL OR api_key_id < $2)
ORDER BY organization_id DESC, api_key_id DESC
LIMIT $3

-- name: select_api_keys_of_mode
-- A statement for each way to look, so that each one's plan is its own index whatever values came before.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND mode = $2 AND ($3::uuid IS NULL OR api_key_id < $3)
ORDER BY organization_id DESC, mode DESC, api_key_id DESC
LIMIT $4

-- name: select_api_keys_of_creator
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND creator_id = $2 AND ($4::text IS NULL OR mode = $4)
  AND ($3::uuid IS NULL OR api_key_id < $3)
ORDER BY organization_id DESC, creator_id DESC, api_key_id DESC
LIMIT $5

-- name: select_usable_api_keys
-- There are few: an organization has a bounded number of keys that serve, however many it had.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $4)
  AND ($3::text IS NULL OR mode = $3) AND ($2::uuid IS NULL OR api_key_id < $2)
ORDER BY organization_id DESC, api_key_id DESC
LIMIT $5

-- name: select_usable_api_keys_of_creator
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND creator_id = $2 AND revoke_time IS NULL
  AND (expire_time IS NULL OR expire_time > $5) AND ($4::text IS NULL OR mode = $4)
  AND ($3::uuid IS NULL OR api_key_id < $3)
ORDER BY organization_id DESC, creator_id DESC, api_key_id DESC
LIMIT $6

-- name: select_api_keys_by_id
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time, last_use_time, replaced_by_id, key_prefix
FROM api_keys
WHERE organization_id = $1 AND api_key_id = ANY($2::uuid[])
