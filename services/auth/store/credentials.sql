-- name: insert_password_reset
-- A job that runs twice inserts once.
INSERT INTO password_resets (password_reset_id, person_id, digest, credential_version, create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT ON CONSTRAINT password_resets_pkey DO NOTHING
RETURNING password_reset_id

-- name: count_password_resets
SELECT count(*) FROM password_resets WHERE person_id = $1 AND create_time > $2

-- name: select_password_reset
SELECT r.password_reset_id AS request_id, r.person_id, r.credential_version
FROM password_resets AS r
WHERE r.digest = ANY($1::bytea[]) AND r.expire_time > $2

-- name: take_password_reset
-- Of two who use one token one finds it.
DELETE FROM password_resets WHERE password_reset_id = $1 RETURNING password_reset_id

-- name: insert_email_change
INSERT INTO email_changes (email_change_id, person_id, new_email, digest, credential_version, create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT ON CONSTRAINT email_changes_pkey DO NOTHING
RETURNING email_change_id

-- name: count_email_changes
SELECT count(*) FROM email_changes WHERE person_id = $1 AND create_time > $2

-- name: select_email_change
SELECT c.email_change_id AS request_id, c.person_id, c.credential_version, c.new_email
FROM email_changes AS c
WHERE c.digest = ANY($1::bytea[]) AND c.expire_time > $2

-- name: take_email_change
DELETE FROM email_changes WHERE email_change_id = $1 RETURNING email_change_id

-- name: remove_requests
-- Another password or address voids what was asked for before it.
WITH resets AS (DELETE FROM password_resets WHERE person_id = $1)
DELETE FROM email_changes WHERE person_id = $1

-- name: remove_expired_password_resets
DELETE FROM password_resets WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM password_resets WHERE expire_time < $1 ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED
))

-- name: remove_expired_email_changes
DELETE FROM email_changes WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM email_changes WHERE expire_time < $1 ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED
))
