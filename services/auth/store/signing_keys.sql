-- name: lock_signing_keys
-- Whoever adds a key waits for whoever adds one already; readers do not wait.
SELECT pg_advisory_xact_lock(hashtextextended('auth.signing_keys', 0))

-- name: select_signing_keys
SELECT key_id, public_key, data_key_version, seed, active_time, retire_time
FROM signing_keys
ORDER BY active_time, key_id

-- name: insert_signing_key
INSERT INTO signing_keys (key_id, public_key, data_key_version, seed, create_time, active_time)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: retire_signing_keys
-- The one that has had no successor so far.
UPDATE signing_keys SET retire_time = $1 WHERE retire_time IS NULL

-- name: remove_retired_signing_keys
DELETE FROM signing_keys WHERE retire_time < $1

-- name: lock_older_signing_keys
SELECT key_id, data_key_version, seed FROM signing_keys
WHERE data_key_version <> $1 AND ($2::text IS NULL OR key_id > $2)
ORDER BY key_id
LIMIT $3
FOR UPDATE

-- name: replace_seed
UPDATE signing_keys SET data_key_version = $2, seed = $3 WHERE key_id = $1
