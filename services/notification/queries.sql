-- name: insert_email
INSERT INTO emails (organization_id, email_id, recipient, template, data_key_version, sealed_parameters, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: lock_emails
-- Counting and inserting are one step per organization.
SELECT pg_advisory_xact_lock(hashtextextended('notification.emails ' || $1::uuid::text, 0))

-- name: select_nth_latest_email
-- With a row, at least so many e-mails are younger than the instant; without one, fewer are.
SELECT create_time FROM emails
WHERE organization_id = $1 AND create_time > $2
ORDER BY organization_id DESC, create_time DESC
OFFSET $3 - 1 LIMIT 1

-- name: lock_recipient
-- The same per recipient, where the e-mails are nobody else's.
SELECT pg_advisory_xact_lock(hashtextextended('notification.recipient ' || $1::text, 0))

-- name: select_nth_latest_email_to
-- As above, of the installation's own e-mails to one recipient.
SELECT create_time FROM emails
WHERE organization_id = '00000000-0000-0000-0000-000000000000' AND recipient = $1 AND create_time > $2
ORDER BY organization_id DESC, recipient DESC, create_time DESC
OFFSET $3 - 1 LIMIT 1

-- name: select_email
-- `parameters` of e-mails that an older release took.
SELECT email_id, organization_id, recipient, template, parameters, data_key_version, sealed_parameters, state
FROM emails
WHERE organization_id = $1 AND email_id = $2

-- name: end_email
-- Once delivered an e-mail stays delivered, whatever a late second attempt finds. A trigger forgets what it said.
UPDATE emails SET state = $3, end_time = $4, last_error = $5
WHERE organization_id = $1 AND email_id = $2 AND state <> 'delivered'

-- name: remove_delivered
-- In parts, so that a long backlog does not become one long transaction. Dead ones stay for operators to see.
DELETE FROM emails WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM emails WHERE state = 'delivered' AND end_time < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
))

-- name: remove_emails_to
-- With the jobs that would deliver them: one of them may say in its error who it was for.
WITH removed AS (
    DELETE FROM emails WHERE ctid = ANY(ARRAY(SELECT ctid FROM emails WHERE lower(recipient) = $1 LIMIT $2 FOR UPDATE))
    RETURNING email_id
), cancelled AS (
    DELETE FROM jobs
    WHERE kind = 'deliver_email' AND payload ->> 'email_id' IN (SELECT email_id::text FROM removed)
)
SELECT count(*) FROM removed

-- name: lock_older_emails
SELECT organization_id, email_id, data_key_version, sealed_parameters FROM emails
WHERE data_key_version <> $1 AND ($2::uuid IS NULL OR email_id > $2)
ORDER BY email_id
LIMIT $3
FOR UPDATE

-- name: replace_sealed_parameters
-- An id is drawn for one e-mail in the whole installation.
UPDATE emails SET data_key_version = $2, sealed_parameters = $3 WHERE email_id = $1
