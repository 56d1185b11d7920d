-- name: insert_registration
INSERT INTO registrations (registration_id, email, password_hash, name, organization_name, currency_code, time_zone,
                           create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: repeat_registration
-- A copy with a token of its own, so that the e-mail that was sent before stays good. The newest one is meant; who was
-- overtaken by a stranger's registers again. A job that runs twice copies once.
INSERT INTO registrations (registration_id, email, password_hash, name, organization_name, currency_code, time_zone,
                           create_time)
SELECT $1, email, password_hash, name, organization_name, currency_code, time_zone, create_time
FROM registrations
WHERE email = $2 AND create_time > $3
ORDER BY create_time DESC, registration_id DESC
LIMIT 1
ON CONFLICT ON CONSTRAINT registrations_pkey DO NOTHING

-- name: lock_unmailed_registration
SELECT email FROM registrations WHERE registration_id = $1 AND mail_time IS NULL FOR UPDATE

-- name: count_registration_mails
SELECT count(*) FROM registrations WHERE email = $1 AND mail_time > $2

-- name: note_registration_mail
-- Without a token where the address has an account already.
UPDATE registrations SET mail_time = $2, digest = $3, expire_time = $4 WHERE registration_id = $1

-- name: select_registration
SELECT registration_id, email, password_hash, name, organization_name, currency_code, time_zone
FROM registrations
WHERE digest = ANY($1::bytea[]) AND expire_time > $2

-- name: take_registration
-- Of two who end the same registration one finds it.
DELETE FROM registrations WHERE registration_id = $1 RETURNING registration_id

-- name: remove_registrations_of
-- Once somebody has proved that the address is theirs, nobody else's registration for it can end.
DELETE FROM registrations WHERE email = $1

-- name: remove_old_registrations
DELETE FROM registrations WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM registrations
    WHERE create_time < $1 AND coalesce(expire_time, mail_time, create_time) < $1
    ORDER BY create_time
    LIMIT $2
))
