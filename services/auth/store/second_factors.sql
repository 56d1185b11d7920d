-- name: lock_second_factor
-- Whoever tries a code waits for whoever tries one already: a code is good once, and failures are counted one by one.
SELECT person_id, data_key_version, secret, newest_step, failure_level, failure_time, create_time, confirm_time
FROM second_factors
WHERE person_id = $1
FOR UPDATE

-- name: put_second_factor
-- Beginning again replaces what was not confirmed. Failures are not forgotten by it.
INSERT INTO second_factors (person_id, data_key_version, secret, failure_time, create_time)
VALUES ($1, $2, $3, $4, $4)
ON CONFLICT ON CONSTRAINT second_factors_pkey DO UPDATE
SET data_key_version = EXCLUDED.data_key_version, secret = EXCLUDED.secret, create_time = EXCLUDED.create_time
WHERE second_factors.confirm_time IS NULL
RETURNING person_id

-- name: confirm_second_factor
UPDATE second_factors SET confirm_time = $2 WHERE person_id = $1

-- name: note_step
UPDATE second_factors SET newest_step = $2 WHERE person_id = $1

-- name: note_failure
UPDATE second_factors SET failure_level = $2, failure_time = $3 WHERE person_id = $1

-- name: remove_second_factor
DELETE FROM second_factors WHERE person_id = $1

-- name: remove_recovery_codes
DELETE FROM recovery_codes WHERE person_id = $1

-- name: insert_recovery_codes
INSERT INTO recovery_codes (person_id, digest, create_time) SELECT $1, unnest($2::bytea[]), $3

-- name: use_recovery_code
UPDATE recovery_codes SET use_time = $3
WHERE person_id = $1 AND digest = ANY($2::bytea[]) AND use_time IS NULL
RETURNING person_id

-- name: count_recovery_codes
SELECT count(*) FROM recovery_codes WHERE person_id = $1 AND use_time IS NULL

-- name: lock_older_second_factors
SELECT person_id, data_key_version, secret FROM second_factors
WHERE data_key_version <> $1 AND ($2::uuid IS NULL OR person_id > $2)
ORDER BY person_id
LIMIT $3
FOR UPDATE

-- name: replace_secret
UPDATE second_factors SET data_key_version = $2, secret = $3 WHERE person_id = $1
