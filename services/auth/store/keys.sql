-- name: select_grants_by_digest
-- The edge's question: one index look-up per digest, all of them in one round trip.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, o.effective_state AS organization_state, k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.digest = ANY($1::bytea[])

-- name: select_grants_by_key
-- Keys that a notice named.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, o.effective_state AS organization_state, k.version + o.version AS version
FROM unnest($1::uuid[], $2::uuid[]) AS changed (organization_id, api_key_id)
JOIN api_keys AS k ON k.organization_id = changed.organization_id AND k.api_key_id = changed.api_key_id
JOIN organizations AS o ON o.organization_id = k.organization_id

-- name: select_grants_by_organization
-- An organization was suspended or restored: the state of all its keys is another one now.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, o.effective_state AS organization_state, k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.organization_id = ANY($1::uuid[]) AND k.revoke_time IS NULL

-- name: select_snapshot
-- Keys that can serve a request, the busiest first. A key that is left out is asked for when it is shown.
SELECT k.digest, k.api_key_id, k.organization_id, k.mode, k.scopes, k.allowed_ips, k.external_subject, k.expire_time,
       k.revoke_time, o.effective_state AS organization_state, k.version + o.version AS version
FROM api_keys AS k
JOIN organizations AS o ON o.organization_id = k.organization_id
WHERE k.revoke_time IS NULL AND (k.expire_time IS NULL OR k.expire_time > $2)
ORDER BY k.last_use_time DESC NULLS LAST, k.api_key_id DESC
LIMIT $1

-- name: touch_keys
-- Last use, at most once per 15 minutes and key. Rows are locked in id order, and one that somebody else holds is left
-- out: that one is being changed anyway, and a look-up must not wait for it.
UPDATE api_keys AS k SET last_use_time = $2::timestamptz
FROM (
    SELECT organization_id, api_key_id FROM api_keys
    WHERE digest = ANY($1::bytea[]) AND (last_use_time IS NULL OR last_use_time < $2::timestamptz - interval '15 minutes')
    ORDER BY organization_id, api_key_id
    FOR UPDATE SKIP LOCKED
) AS stale
WHERE k.organization_id = stale.organization_id AND k.api_key_id = stale.api_key_id

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
       expire_time, revoke_time
FROM api_keys
WHERE organization_id = $1 AND api_key_id = $2
FOR UPDATE

-- name: revoke_api_key
UPDATE api_keys SET revoke_time = $3 WHERE organization_id = $1 AND api_key_id = $2

-- name: select_api_keys
-- Ids are UUIDv7, so their order is the order of creation and one column carries the page.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time
FROM api_keys
WHERE organization_id = $1 AND ($2::uuid IS NULL OR api_key_id < $2)
ORDER BY organization_id DESC, api_key_id DESC
LIMIT $3

-- name: select_api_keys_of_creator
-- A statement of its own, so that its plan is the index by creator whatever values came before.
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time
FROM api_keys
WHERE organization_id = $1 AND creator_id = $2 AND ($3::uuid IS NULL OR api_key_id < $3)
ORDER BY organization_id DESC, creator_id DESC, api_key_id DESC
LIMIT $4

-- name: select_api_keys_by_id
SELECT api_key_id, organization_id, name, hint, mode, scopes, allowed_ips, external_subject, creator_id, create_time,
       expire_time, revoke_time
FROM api_keys
WHERE organization_id = $1 AND api_key_id = ANY($2::uuid[])
